"""An epoch that can be gone on with in its middle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop

from .randomness import addressed_sampler


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's epoch-based loop, which after a resume does the rest of the epoch it was stopped in.

    mmengine begins that epoch anew, while its count of iterations goes on. :class:`nepa_mm.engine.NEPARunner` takes
    this loop wherever a config asks for an ``EpochBasedTrainLoop``; the arguments are the same.
    """

    def run_epoch(self) -> None:
        """Iterate an epoch, or what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for idx, data_batch in self._batches(self._iter - self._epoch * len(self.dataloader)):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _batches(self, done: int) -> Iterator[tuple[int, Any]]:
        """Batches of the epoch with their numbers, from the first that is not done."""
        sampler = addressed_sampler(self.dataloader)
        if done and sampler is None:
            self.runner.logger.info(f'Loading {done} batches again: {type(self.dataloader.batch_sampler)} cannot skip.')
            return islice(enumerate(self.dataloader), done, None)
        if done and sampler is not None:
            self.runner.logger.info(f'Going on inside epoch {self._epoch + 1}, after {done} of its iterations.')
            sampler.start_inside_epoch(done * self.dataloader.batch_size)
        return enumerate(self.dataloader, done)
