"""Worker processes of a run's data loaders: they end with it, and not before."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

_AnyRunner: Any = Runner if TYPE_CHECKING else object


class StoppedWorkers(_AnyRunner):
    """A runner whose loaders' workers end with the training, validation or test that they served.

    A class that inherits from this and, after it, from mmengine's ``Runner`` or ``FlexibleRunner``.

    mmengine leaves persistent workers, and those of an endless sampler, to Python's garbage collector. They keep their
    memory until it comes, and then, because a runner is part of a reference cycle, torch's word to them is lost with
    their queue: it waits for 5 seconds per worker, in whatever the process happens to do at that time.
    """

    def train(self) -> nn.Module:
        """Train."""
        try:
            return super().train()
        finally:
            stop_workers(self._train_loop)
            stop_workers(self._val_loop)

    def val(self) -> dict:
        """Validate."""
        try:
            return super().val()
        finally:
            stop_workers(self._val_loop)

    def test(self) -> dict:
        """Test."""
        try:
            return super().test()
        finally:
            stop_workers(self._test_loop)


def stop_workers(loop: Any) -> None:
    """End the workers of a loop's data loader; its next iteration starts new ones.

    Args:
        loop (BaseLoop, dict or None): Only a loop that has been built can have workers.
    """
    for owner in (getattr(loop, 'dataloader', None), getattr(loop, 'dataloader_iterator', None)):
        if owner is not None and isinstance(getattr(owner, '_iterator', None), _MultiProcessingDataLoaderIter):
            owner._iterator._shutdown_workers()
            owner._iterator = None


def keep_from_signals(loader: DataLoader) -> None:
    """Let a loader's workers live on when the group of their process is told to end.

    ``torchrun`` sends SIGTERM to the whole process group of each process that it has started. The process saves what it
    has done and ends its workers; had they died of the signal already, it would find itself without data and break off
    before it has saved. So a worker makes a group of its own. It ends as before when its process says so, and within
    seconds when its process is gone: torch's workers look.

    Args:
        loader (DataLoader): The loader, before it has started workers.
    """
    loader.worker_init_fn = partial(_in_own_group, loader.worker_init_fn)


def _in_own_group(init: Callable[[int], None] | None, worker_id: int) -> None:
    """What a worker begins with."""
    if hasattr(os, 'setpgid'):  # not on Windows, whose processes have no groups to be signalled
        with suppress(OSError):
            os.setpgid(0, 0)
    if init is not None:
        init(worker_id)
