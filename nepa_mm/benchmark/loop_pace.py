"""A run of the pretraining recipe in which each iteration is followed by a bare one."""

import contextlib
import copy
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, RUNNERS, DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import Dataset

from nepa_mm.apis.configs import find_config
from nepa_mm.engine import ForeachEMA

RECIPE = 'nepa_base-p14_8xb512-bf16-coslr-1600e_in1k'


@DATASETS.register_module()
class ImagesInMemory(Dataset):
    """Noise images that cost nothing to load.

    Args:
        img_size (int): Side in pixels.
        length (int): Number of images. Defaults to 64.
    """

    def __init__(self, img_size: int, length: int = 64) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (length, 3, img_size, img_size), dtype=torch.uint8, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(inputs=self.images[index], data_samples=0)


class Pace(Hook):
    """Follow each iteration of a run with a bare one of a twin model, and time both.

    What the runner is charged with is all that passes between two bare iterations: the loop, loading, every hook, the
    step. A neighbour's load falls on both alike.

    Args:
        warmup (int): Pairs before, not counted.
        past (int): Iterations that the histories of all scalars seem to hold already. Defaults to 0.
    """

    priority = 'LOWEST'

    def __init__(self, warmup: int, past: int = 0) -> None:
        self.warmup = warmup
        self.past = past
        self.runner: list[float] = []
        self.bare: list[float] = []
        self.num_groups = 0
        self.twin: nn.Module | None = None
        self._step: Callable[[], None] = lambda: None
        self._start = 0.0

    @property
    def added(self) -> list[float]:
        """Seconds that the runner adds, pair by pair."""
        return [mine - bare for mine, bare in zip(self.runner, self.bare, strict=True)]

    @property
    def quotients(self) -> list[float]:
        """Runner over bare, pair by pair."""
        return [mine / bare for mine, bare in zip(self.runner, self.bare, strict=True)]

    def before_train(self, runner: Runner) -> None:
        """Make the twin."""
        self.num_groups = len(runner.optim_wrapper.optimizer.param_groups)
        self.twin = copy.deepcopy(runner.model)
        self._step = bare_step(runner, self.twin)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Lengthen the histories, once they are there."""
        if runner.iter == self.warmup and self.past:
            for key, history in runner.message_hub.log_scalars.items():
                runner.message_hub._log_scalars[key] = _longer(history, self.past)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note what the runner took, and take a bare step."""
        _wait()
        runners = time.perf_counter() - self._start
        self._step()
        _wait()
        bares = time.perf_counter() - self._start - runners
        if runner.iter > self.warmup:  # the first timed one has paid for the longer histories
            self.runner.append(runners)
            self.bare.append(bares)
        self._start = time.perf_counter()


def bare_step(runner: Runner, model: Any) -> Callable[[], None]:
    """What is left of a run's iteration without a runner.

    Args:
        runner (Runner): A runner about to train.
        model (nn.Module): A copy of its model.

    Returns:
        Callable: Load, forward, backward, clip, update, average.
    """
    optimizer = build_optim_wrapper(model, copy.deepcopy(runner.cfg.optim_wrapper)).optimizer
    average = ForeachEMA(model, momentum=runner.cfg.custom_hooks[0].momentum)
    params = [p for group in optimizer.param_groups for p in group['params']]
    batches = _endless(Runner.build_dataloader(copy.deepcopy(runner.cfg.train_dataloader), seed=0))
    device = params[0].device.type

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            losses = model(**model.data_preprocessor(next(batches), True), mode='loss')
        losses['loss'].backward()
        clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(model)

    return step


def keep_pace(
    arch: str | Mapping[str, int],
    img_size: int,
    batch_size: int,
    iters: int,
    warmup: int = 2,
    past: int = 0,
    stock: bool = False,
    prepare: Callable[[Pace], None] = lambda pace: None,
) -> Pace:
    """Train by the pretraining recipe and its default hooks, with a bare step after each of the run's own.

    Args:
        arch (str | Mapping[str, int]): Of the backbone.
        img_size (int): Side of the square images in pixels.
        batch_size (int): Images per iteration.
        iters (int): Timed iterations.
        warmup (int): Iterations before. Defaults to 2.
        past (int): See :class:`Pace`. Defaults to 0.
        stock (bool): mmengine's runner, hooks and average instead of ours. Defaults to False.
        prepare (Callable): Given the hook before the run begins. Defaults to nothing.

    Returns:
        Pace: The times.
    """
    pace = Pace(warmup, past)
    prepare(pace)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        cfg = pace_config(arch, img_size, batch_size, iters + warmup + 1, stock)
        cfg.work_dir = folder
        # Its loggers live as long as the process, by this name, and by default two runs of one second share it.
        cfg.experiment_name = Path(folder).name
        runner = RUNNERS.build(cfg)
        runner.register_hook(pace, priority='LOWEST')
        try:
            runner.train()
        finally:
            DefaultScope._instance_dict.pop(runner.experiment_name, None)  # mmengine keeps it for the process
    return pace


def pace_config(
    arch: str | Mapping[str, int], img_size: int, batch_size: int, iters: int, stock: bool = False
) -> Config:
    """The pretraining recipe on images in memory; see :func:`keep_pace`."""
    cfg = Config.fromfile(find_config(RECIPE))
    cfg.model.backbone.arch = arch
    cfg.train_dataloader = dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type='InfiniteSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dict(type='ImagesInMemory', img_size=img_size, _scope_='mmengine'),
    )
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iters)
    cfg.param_scheduler = [dict(type='LayerWiseCosineLR', warmup=40, end=1600, by_epoch=False)]
    cfg.log_processor = dict(by_epoch=False)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=10**9, save_last=False)
    cfg.auto_scale_lr = None
    if stock:
        cfg.runner_type = 'Runner'
        for hook in ('bad_data', 'bad_numbers'):
            cfg.default_hooks.pop(hook, None)
        cfg.default_hooks.checkpoint.type = 'CheckpointHook'
        cfg.custom_hooks = [dict(cfg.custom_hooks[0], ema_type='ExponentialMovingAverage')]
    return cfg


def _longer(history: HistoryBuffer, past: int) -> HistoryBuffer:
    values, counts = history.data
    return type(history)([*([values[-1]] * past), *values], [*([1] * past), *counts])


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
