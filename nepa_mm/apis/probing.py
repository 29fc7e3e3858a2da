"""tools/analysis/probe.py: from a config and a checkpoint to the accuracy of every layer."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn

from ..checkpoints import init_cfg_entries, load_weights
from ..evaluation import ProbeError, ProbeReport, ProbeSettings, backbone_of, probe_layers, split_by_class
from ..version import __version__
from .cli import UsageError, check_device, load_config, parse_options
from .config_parts import model_config
from .preprocessing import centre_crop_pipeline, evaluation_pipeline, training_crop

SEED = 0
HELD_OUT_FOLDER = 0.2
EVALUATION = ('val_dataloader', 'test_dataloader')


def run_probe(args: argparse.Namespace, configs: str | Path) -> ProbeReport:
    """Probe as the command line says, print the table and write the files.

    Args:
        args (argparse.Namespace): Arguments of tools/analysis/probe.py.
        configs (str | Path): Folder whose configs have names.

    Returns:
        ProbeReport: What was found.

    Raises:
        UsageError: An argument does not fit the config or the data.
        nepa_mm.checkpoints.CheckpointError: The checkpoint cannot be read or does not fit.
    """
    check_device(args.device)
    cfg = load_config(args.config, configs)
    cfg.merge_from_dict(parse_options(args.cfg_options))
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    if (args.checkpoint is None) != args.random_weights:
        raise UsageError('give a checkpoint, or --random-weights to probe an untrained network on purpose')
    for name in ('batch_size', 'image_size', *(['k'] if args.knn or not args.linear else [])):
        given = getattr(args, name)
        if given is not None and np.min(given) < 1:
            raise UsageError(f'--{name.replace("_", "-")} {given} is not positive')
    settings = ProbeSettings(
        layers=_layers(args.layers),
        poolings=args.pool.split(','),
        ks=tuple(args.k) if args.knn or not args.linear else (),
        linear=args.linear or not args.knn,
        causal={None: None, 'causal': True, 'bidirectional': False}[args.attention],
        amp=args.amp,
        dtype=args.feature_dtype,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        seed=SEED,
    )
    work_dir = Path(args.work_dir or Path('work_dirs', f'probe_{Path(args.config).stem}'))
    try:
        model = _model(cfg)
        backbone = backbone_of(model)
        if args.checkpoint is not None:
            entries = init_cfg_entries(cfg.model.backbone.get('init_cfg'))
            resample = any(entry.get('resample_patch_embed') for entry in entries)
            print(load_weights(backbone, args.checkpoint, weights=args.weights, resample_patch_embed=resample))
        model.to(args.device or get_device())
        pipeline = _pipeline(cfg, args)
        train, val = _datasets(cfg, args, pipeline)
        cache = None if args.no_cache else args.cache_dir or work_dir / 'features'
        report = probe_layers(model, _facts(cfg, pipeline), train, val, settings, cache)
    except (ProbeError, OSError) as error:
        raise UsageError(str(error)) from error
    report.about.update(config=args.config, checkpoint=args.checkpoint, weights=args.weights)
    if args.random_weights:
        report.about.update(weights='random')
    work_dir.mkdir(parents=True, exist_ok=True)
    report.write_json(work_dir / 'probe.json')
    report.write_csv(work_dir / 'probe.csv')
    from ..visualization.probe_plot import draw_accuracy_over_depth

    draw_accuracy_over_depth(report, work_dir / 'probe.png', title=_title(report))
    print(f'\n{report.table()}\n\n{report.summary()}\n\nWritten: {work_dir}/probe.json, probe.csv, probe.png')
    return report


def _layers(text: str) -> str | list[int | str]:
    """Layers as the command line names them: 'all', or 'embed,0,5,-1'."""
    if text == 'all':
        return text
    return [int(part) if part.lstrip('-').isdigit() else part for part in text.split(',')]


def _model(cfg: Config) -> nn.Module:
    """The config's model with random weights, reproducible ones: what is loaded is the caller's business."""
    model = model_config(cfg)
    model.init_cfg = None
    model.backbone.init_cfg = None
    torch.manual_seed(SEED)
    return MODELS.build(model).eval()


def _facts(cfg: Config, pipeline: Sequence[dict]) -> dict[str, Any]:
    """What of the config the features depend on; weights and images are looked at themselves."""
    model = model_config(cfg)
    return dict(
        nepa_mm=__version__,
        model=str(model.type),
        backbone=repr({k: v for k, v in model.backbone.items() if k != 'init_cfg'}),
        data_preprocessor=repr(model.get('data_preprocessor')),
        pipeline=repr(pipeline),
    )


def _pipeline(cfg: Config, args: argparse.Namespace) -> list[dict]:
    """The pipeline of the config's evaluation, or one like it; training images go through it too."""
    size = args.image_size
    if size is None:
        pipeline = evaluation_pipeline(cfg, EVALUATION)
        if pipeline is not None:
            return pipeline
        crop = training_crop(cfg)
        if crop is None:
            raise UsageError(
                'the training pipeline of the config does not say how large its crops are; pass --image-size'
            )
        size = crop[0]
    return centre_crop_pipeline(size, 'bicubic')  # as the release evaluates


def _evaluation(cfg: Config) -> Any:
    return next((cfg[name] for name in EVALUATION if cfg.get(name)), None)


def _datasets(cfg: Config, args: argparse.Namespace, pipeline: Sequence[dict]) -> tuple[Any, Any]:
    """Training and validation images, of the folders that are named or else of the config."""
    evaluation = _evaluation(cfg)
    if args.train_data is None:
        if args.val_data is not None:
            raise UsageError('--val-data needs --train-data, the folder that the probes learn from')
        if evaluation is None:
            raise UsageError(
                f'config {args.config!r} has no labelled images; name some: --train-data FOLDER [--val-data FOLDER], '
                'each with a folder per class'
            )
        train, val = (
            DATASETS.build(_with_pipeline(loader.dataset, pipeline)) for loader in (cfg.train_dataloader, evaluation)
        )
        return train, val
    folders = [args.train_data, args.train_data if args.val_data is None else args.val_data]
    train, val = (DATASETS.build(_class_folders(folder, pipeline)) for folder in folders)
    if args.val_data is None:
        labels = torch.tensor([train.get_data_info(i)['gt_label'] for i in range(len(train))])
        held_out = split_by_class(labels, HELD_OUT_FOLDER, SEED)
        train.get_subset_((~held_out).nonzero()[:, 0].tolist())
        val.get_subset_(held_out.nonzero()[:, 0].tolist())
        print(f'No --val-data: a fifth of each class of {args.train_data} is held out to score on.')
    return train, val


def _class_folders(folder: str, pipeline: Sequence[dict]) -> dict:
    path = Path(folder)
    if not path.is_dir() or not any(child.is_dir() for child in path.iterdir()):
        what = 'has no folders in it' if path.is_dir() else f'does not exist (seen from {os.getcwd()})'
        raise UsageError(f'{folder!r} {what}; a folder per class is expected, with its images below')
    return dict(type='CustomDataset', data_root=folder, pipeline=pipeline)


def _with_pipeline(dataset: Mapping[str, Any], pipeline: Sequence[dict]) -> dict:
    """Config of a data set with another pipeline, wrapped (RepeatDataset, ConcatDataset) or not."""
    dataset = dict(dataset)
    if 'dataset' in dataset:
        dataset['dataset'] = _with_pipeline(dataset['dataset'], pipeline)
    elif 'datasets' in dataset:
        dataset['datasets'] = [_with_pipeline(part, pipeline) for part in dataset['datasets']]
    else:
        dataset['pipeline'] = pipeline
    return dataset


def _title(report: ProbeReport) -> str:
    about = report.about
    return (
        f'{Path(about["config"]).stem}, {about["weights"]} weights, {about["attention"]}\n'
        f'{about["num_train"]} training, {about["num_val"]} validation images, {about["num_classes"]} classes'
    )
