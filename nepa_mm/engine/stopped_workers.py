"""What a run leaves behind: no worker processes of its data loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmengine.runner import Runner
from torch import nn
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
