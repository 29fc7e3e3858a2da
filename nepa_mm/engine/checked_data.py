"""Runs that look at their data: bad images are replaced in training, wrong labels are named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmengine.runner import BaseLoop, Runner

from nepa_mm.datasets import BadImages, CheckedDataset

from .hooks.bad_data_hook import BadDataHook

_AnyRunner: Any = Runner if TYPE_CHECKING else object


class CheckedDataRuns(_AnyRunner):
    """The part of :class:`nepa_mm.engine.NEPARunner` that puts a :class:`nepa_mm.datasets.CheckedDataset` around data.

    In training with a :class:`BadDataHook`, an image that cannot be read is replaced; else it is an error. Labels that
    are no class of the model's heads are errors in training, validation and test.
    """

    _train_dataloader: Any
    _val_dataloader: Any
    _test_dataloader: Any

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop on a checked data set.

        Args:
            loop (BaseLoop or dict): The loop or its config.

        Returns:
            BaseLoop: The loop.
        """
        hooks = [hook for hook in self.hooks if isinstance(hook, BadDataHook)]
        if isinstance(loop, dict):
            bad_images = hooks[0].start(self) if hooks else None
            self._train_dataloader = self._checked(self._train_dataloader, bad_images)
        return super().build_train_loop(loop)

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the validation loop on a checked data set.

        Args:
            loop (BaseLoop or dict): The loop or its config.

        Returns:
            BaseLoop: The loop.
        """
        self._val_dataloader = self._checked(self._val_dataloader)
        return super().build_val_loop(loop)

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the test loop on a checked data set.

        Args:
            loop (BaseLoop or dict): The loop or its config.

        Returns:
            BaseLoop: The loop.
        """
        self._test_dataloader = self._checked(self._test_dataloader)
        return super().build_test_loop(loop)

    def _checked(self, dataloader: Any, bad_images: BadImages | None = None) -> Any:
        """The config of a data loader, around its data set; what is built already stays as it is."""
        if not isinstance(dataloader, Mapping) or isinstance(dataloader['dataset'], CheckedDataset):
            return dataloader
        from nepa_mm.datasets.verification.configs import read_heads  # imports more than a help text should wait for

        model = self.cfg.get('model')
        heads = read_heads(dict(model=model)) if isinstance(model, Mapping) else None
        num_classes = min(heads.label_classes.values(), default=None) if heads else None
        ignore_index = next(iter(heads.ignore_index.values()), 255) if heads else 255
        if bad_images is None and num_classes is None:
            return dataloader
        dataset = dict(
            type=CheckedDataset,
            dataset=dataloader['dataset'],
            bad_images=bad_images,
            num_classes=num_classes,
            ignore_index=ignore_index,
        )
        return {**dataloader, 'dataset': dataset}
