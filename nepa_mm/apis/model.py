"""``get_model``: a config and a checkpoint become a model that predicts."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

import nepa_mm.models  # noqa: F401  registers ours, also for configs without custom_imports
from nepa_mm.checkpoints import (
    CheckpointError,
    LoadReport,
    init_cfg_entries,
    init_weights_checked,
    load_state_dict,
    read_weights,
)

from .classes import find_dataset_meta, num_classes_of
from .config_parts import model_config
from .configs import find_config


def get_model(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    *,
    weights: str | None = None,
    device: str | torch.device | None = None,
    untrained: bool = False,
    **options: Any,
) -> BaseModel:
    """Build a model and load its weights, ready for :func:`classify`, :func:`segment` and :func:`features`.

    The hosts' own tools take the model too: mmpretrain's ``ImageClassificationInferencer(model)`` and
    ``FeatureExtractor(model)``, and ``mmseg.apis.inference_model(model, image)``, which counts on
    ``mmengine.registry.init_default_scope('mmseg')``: that changes the whole process and is left to the caller.

    Args:
        config (str, Path or Config): A config file, the name of one of this package's
            (:func:`nepa_mm.apis.configs.list_models`), or a config.
        checkpoint (str or Path, optional): What :func:`nepa_mm.checkpoints.read_checkpoint` reads. It must hold every
            weight of the model, the head's too; the report is logged.
        weights (str, optional): 'raw' or 'ema', for a checkpoint that holds both. Defaults to None: what
            ``tools/test.py`` evaluates, which is the average where a run's checkpoint holds one.
        device (str or torch.device, optional): Defaults to the GPU if there is one.
        untrained (bool): Without a checkpoint: initialise as a training run would, from the ``init_cfg`` of the config
            where it has one and at random otherwise, which is logged as a warning. Defaults to False.
        **options: Settings of the config's ``model``, such as ``backbone=dict(causal=True)``.

    Returns:
        BaseModel: The model in eval mode, with its config as ``_config`` (mmpretrain) and ``cfg`` (mmseg) and its class
        names as ``_dataset_meta`` and ``dataset_meta``.

    Raises:
        ConfigNotFoundError: There is no such config.
        ValueError: Neither a checkpoint nor ``untrained=True`` is given, or both are.
        CheckpointError: The checkpoint cannot be read safely, or does not hold every weight of the model.

    Examples:
        >>> model = nepa_mm.get_model('nepa_base-p14_8xb128-bf16-coslr-100e_in1k', 'epoch_100.pth')
        >>> nepa_mm.classify(model, 'dog.jpg').class_name
    """
    if not isinstance(config, Config):
        config = find_config(config)  # first: a wrong name is a wrong name, with a checkpoint or without
    if checkpoint is None and not untrained:
        raise ValueError(
            f'get_model({str(getattr(config, "filename", config))!r}): give the checkpoint, or untrained=True for a '
            'model as a training run starts with; nothing is inferred from random weights unnoticed'
        )
    if checkpoint is not None and untrained:
        raise ValueError(f'get_model: checkpoint={str(checkpoint)!r} and untrained=True exclude each other')
    cfg = copy.deepcopy(config) if isinstance(config, Config) else Config.fromfile(config)
    if options:
        cfg.merge_from_dict(dict(model=options))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        # SyncBN wants a process group, and in eval mode BN computes the same.
        model = revert_sync_batchnorm(MODELS.build(model_config(cfg)))
        meta: dict[str, Any] = {}
        if checkpoint is None:
            _start(model)
        else:
            report, meta = _load(model, checkpoint, weights)
            print_log(str(report), logger='current')

    dataset_meta = find_dataset_meta(cfg, meta, num_classes_of(model))
    model._config, model._metainfo, model._dataset_meta = cfg, None, dataset_meta
    # mmseg's inference changes the config that it finds.
    model.cfg, model.dataset_meta = copy.deepcopy(cfg), dataset_meta
    return model.to(get_device() if device is None else device).eval()


def config_of(model: BaseModel) -> Config:
    """The config of a model, whether :func:`get_model`, mmpretrain's or mmseg's made it.

    Raises:
        TypeError: It has none.
    """
    cfg = getattr(model, '_config', None) or getattr(model, 'cfg', None)
    if not isinstance(cfg, Config):
        raise TypeError(f'{type(model).__name__} does not know its config; make it with nepa_mm.get_model(config, ...)')
    return cfg


def _start(model: BaseModel) -> None:
    """Initialise as a training run does, and say so."""
    sources = [
        entry['checkpoint']
        for part in (model, *model.children())
        for entry in init_cfg_entries(getattr(part, 'init_cfg', None))
        if entry.get('type') == 'Pretrained'
    ]
    # mmengine would print a paragraph for every parameter where there is no log file.
    model._dump_init_info = lambda: None
    try:
        init_weights_checked(model, model.init_weights)
    finally:
        del model._dump_init_info  # a function without a name: the model could not be pickled
    rest = f'weights are random, but for those of init_cfg: {", ".join(map(str, sources))}' if sources else ''
    print_log(
        f'untrained=True: {rest or "all weights are random"}. Predictions mean nothing.',
        logger='current',
        level=logging.WARNING,
    )


def _load(model: BaseModel, checkpoint: str | Path, weights: str | None) -> tuple[LoadReport, dict[str, Any]]:
    """Load every weight of the model, and return the ``meta`` that stands beside them in the file."""
    loaded, source = read_weights(checkpoint, weights)
    report = load_state_dict(model, loaded['state_dict'], source=source, checkpoint=loaded)
    if report.missing or report.reshaped:
        raise CheckpointError(
            f'{checkpoint} does not hold every weight of the model; take the config it was trained with (for features '
            f'of a pretraining, its pretraining config).\n{report}'
        )
    return report, dict(loaded.get('meta') or {})
