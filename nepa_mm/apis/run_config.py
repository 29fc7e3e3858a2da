"""From the arguments of tools/train.py and tools/test.py to the config of a run."""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import HOOKS, RUNNERS

from nepa_mm.checkpoints import CheckpointError, fetch
from nepa_mm.checkpoints.latest import last_whole
from nepa_mm.checkpoints.sources import RELEASE_EMA_WEIGHTS, RELEASE_WEIGHTS
from nepa_mm.engine.resuming import ResumableRuns

from .cli import UsageError, load_config, parse_options
from .data_check import check_data
from .testing import check_outputs

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def train_config(args: argparse.Namespace, configs: str | Path) -> Config:
    """Config of a training run: the file, then the arguments, then ``--cfg-options``.

    Args:
        args (argparse.Namespace): Arguments of tools/train.py.
        configs (str or Path): See :func:`load_config`.

    Returns:
        Config: What :func:`build_runner` takes.

    Raises:
        UsageError: If an argument does not fit the config or names a file that does not exist.
    """
    cfg = load_config(args.config, configs)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    _set_common(cfg, args)
    if args.amp:
        _train_in_bfloat16(cfg)
    if args.auto_scale_lr:
        cfg.auto_scale_lr = dict(cfg.get('auto_scale_lr') or {}, enable=True)
    _set_dataloaders(cfg, args)
    cfg.merge_from_dict(parse_options(args.cfg_options))

    # From here on what depends on the final config.
    if cfg.get('train_dataloader') is None:
        raise UsageError(f'config {args.config!r} has no train_dataloader: nothing to train on')
    if args.auto_scale_lr and not cfg.auto_scale_lr.get('base_batch_size'):
        raise UsageError(
            f'--auto-scale-lr: config {args.config!r} has no auto_scale_lr; add '
            'auto_scale_lr=dict(base_batch_size=N), N the batch its lr was chosen for'
        )
    if args.resume is not None:
        _resume(cfg, args.resume)
    _fit_dataloaders(cfg)
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    return cfg


def test_config(args: argparse.Namespace, configs: str | Path) -> Config:
    """Config of a test run: the file, then the arguments, then ``--cfg-options``.

    Args:
        args (argparse.Namespace): Arguments of tools/test.py.
        configs (str or Path): See :func:`load_config`.

    Returns:
        Config: What :func:`build_runner` takes.

    Raises:
        UsageError: If an argument does not fit the config or names a file that does not exist.
    """
    check_outputs(args)
    cfg = load_config(args.config, configs)
    _check_checkpoint(args.checkpoint, args.weights)
    _set_common(cfg, args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.weights is not None:
        cfg.test_weights = args.weights
    if args.show or args.show_dir is not None:
        _visualize(cfg, args)
    _set_dataloaders(cfg, args)
    cfg.merge_from_dict(parse_options(args.cfg_options))

    # From here on what depends on the final config.
    if cfg.get('test_dataloader') is None:
        raise UsageError(f'config {args.config!r} has no test_dataloader: nothing to test on')
    if args.amp:
        _test_in_bfloat16(cfg)
    if args.tta:
        absent = [key for key in ('tta_model', 'tta_pipeline') if cfg.get(key) is None]
        if absent:
            raise UsageError(
                f'--tta: config {args.config!r} has no {" and no ".join(absent)}; add '
                'tta_model=dict(type=...) and tta_pipeline=[...], whose last step is TestTimeAug'
            )
        # After the options: model.* must mean the model, not what is wrapped around it.
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    _fit_dataloaders(cfg)
    check_data(cfg, ('test_dataloader',))
    return cfg


def _set_common(cfg: Config, args: argparse.Namespace) -> None:
    """Launcher and work directory: the argument, else the config's, else ./work_dirs/NAME."""
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', Path(args.config).stem)


def _train_in_bfloat16(cfg: Config) -> None:
    """``--amp``: make the plain optimizer wrapper an AutocastOptimWrapper."""
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    kind = getattr(kind, '__name__', kind)  # configs in pure Python name classes
    if kind in ('AmpOptimWrapper', 'AutocastOptimWrapper'):
        print_log(f'--amp: the config trains with {kind} already.', logger='current')
        return
    if kind not in ('OptimWrapper', 'FiniteOptimWrapper'):
        raise UsageError(
            f'--amp takes a config whose optim_wrapper is an OptimWrapper, but it is {kind!r}; '
            'set mixed precision in the config'
        )
    wrapper.type = 'AutocastOptimWrapper'


def _test_in_bfloat16(cfg: Config) -> None:
    """``--amp``: mmengine's loop autocasts to the device's default dtype, which we set."""
    cfg.test_cfg.fp16 = True
    # On GPUs the default is float16, which overflows where a bfloat16 run did not.
    torch.set_autocast_dtype(get_device(), torch.bfloat16)


def _resume(cfg: Config, resume: str) -> None:
    """``--resume``: from a file, or from the last checkpoint of the work directory."""
    if resume != 'auto':
        _check_checkpoint(resume)
        cfg.resume, cfg.load_from, cfg.auto_resume = True, resume, False
        return
    kind = RUNNERS.get(cfg.get('runner_type', 'NEPARunner'))
    if kind is None or issubclass(kind, ResumableRuns):
        # The runner looks for it: only then do the processes know of each other, and one may set a damaged file aside.
        cfg.resume, cfg.auto_resume = False, True
        return
    latest = last_whole(cfg.work_dir)
    cfg.resume = latest is not None
    if latest is None:
        start = f'load_from={cfg.load_from}' if cfg.get('load_from') else 'the beginning'
        print_log(f'--resume: no checkpoint in {cfg.work_dir}; starts from {start}.', logger='current')
    else:
        cfg.load_from = str(latest)


def _check_checkpoint(path: str, weights: str | None = None) -> None:
    """Refuse a path that does not exist and fetch a remote one, before anything is built."""
    try:
        local = fetch(path, files=(RELEASE_EMA_WEIGHTS if weights == 'ema' else RELEASE_WEIGHTS,))
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    if local.exists():
        return
    folder = local.parent
    names = sorted(p.name for p in folder.glob('*.pth')) if folder.is_dir() else []
    close = difflib.get_close_matches(local.name, names, n=3) or names[-3:]
    raise UsageError(f'checkpoint {path!r} does not exist' + (f'; {folder} holds {", ".join(close)}' if close else ''))


def _visualize(cfg: Config, args: argparse.Namespace) -> None:
    """``--show``, ``--show-dir``: turn on the visualization hook, mmseg's or mmpretrain's."""
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UsageError(
            '--show and --show-dir need default_hooks.visualization in the config: '
            "dict(type='SegVisualizationHook') for segmentation, dict(type='VisualizationHook') "
            'for classification'
        )
    with HOOKS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = registry.get(hook.type) if isinstance(hook.type, str) else hook.type
    accepted = inspect.signature(kind).parameters if kind is not None else {}
    hook.update(show=args.show, wait_time=args.wait_time, interval=args.interval)
    if 'draw' in accepted:
        # mmseg's hook leaves the files to the visualizer
        hook.draw = True
        if args.show_dir is not None:
            if cfg.get('visualizer') is None:
                raise UsageError("--show-dir needs visualizer=dict(type='SegLocalVisualizer')")
            cfg.visualizer.save_dir = args.show_dir
            cfg.visualizer.setdefault('vis_backends', [dict(type='LocalVisBackend')])
    else:
        hook.enable = True
        hook.out_dir = args.show_dir


def _set_dataloaders(cfg: Config, args: argparse.Namespace) -> None:
    """Memory pinning, worker persistence, collation: arguments, else config, else the hosts'."""
    for loader in _dataloaders(cfg):
        loader.setdefault('pin_memory', True)
        loader.setdefault('persistent_workers', True)
        if args.no_pin_memory:
            loader.pin_memory = False
        if getattr(args, 'no_persistent_workers', False):
            loader.persistent_workers = False
        # mmpretrain's tools stack samples unless told otherwise, and its configs count on it;
        # mmseg's leave them a list.
        if cfg.get('default_scope') == 'mmpretrain':
            loader.setdefault('collate_fn', dict(type='default_collate'))


def _fit_dataloaders(cfg: Config) -> None:
    """Take back what this machine or this number of workers cannot have."""
    gpu = get_device() != 'cpu'
    for loader in _dataloaders(cfg):
        # Without a GPU pinning only warns; without workers there is none to keep and torch raises.
        loader.pin_memory = loader.pin_memory and gpu
        loader.persistent_workers = loader.persistent_workers and loader.get('num_workers', 0) > 0


def _dataloaders(cfg: Config) -> list[ConfigDict]:
    """The data loaders that the config has."""
    return [cfg[name] for name in DATALOADERS if cfg.get(name) is not None]
