"""What a run need not wait for: the device at every iteration, and its config written out five times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MessageHub
from mmengine.model import BaseDataPreprocessor
from mmengine.runner import Runner
from torch import nn

from .message_hub import DeferredMessageHub

_AnyRunner: Any = Runner if TYPE_CHECKING else object


class FormattedConfig(Config):
    """A config that is written out once, not anew for each of those who ask.

    mmengine formats a run's config with yapf, half a second for one of segmentation, when a run starts four times (log,
    work directory, visualizer, message hub), and once more for every checkpoint.
    """

    _texts: dict[str, str] = {}

    @classmethod
    def of(cls, cfg: Config) -> FormattedConfig:
        """The same config as this class; its content is shared.

        Args:
            cfg (Config): Any config.

        Returns:
            FormattedConfig: The config.
        """
        formatted = cls.__new__(cls)
        formatted.__dict__.update(cfg.__dict__)
        return formatted

    @property
    def pretty_text(self) -> str:
        """The config as formatted Python text."""
        content = f'{self._format_python_code} {self._cfg_dict!r}'
        if content not in self._texts:
            # Few are ever asked for in turns: a run's config as it was given and as the runner changed it.
            while len(self._texts) >= 4:
                self._texts.pop(next(iter(self._texts)))
            self._texts[content] = super().pretty_text
        return self._texts[content]


class LightRuns(_AnyRunner):
    """A runner that starts sooner and does not wait for the device between log lines.

    A class that inherits from this and, after it, from mmengine's ``Runner`` or ``FlexibleRunner``.

    Args:
        *args (Any): Arguments of the runner.
        cfg (dict or Config, optional): The run's config.
        **kwargs (Any): Further arguments of the runner.
    """

    def __init__(self, *args: Any, cfg: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, cfg=FormattedConfig.of(cfg) if isinstance(cfg, Config) else cfg, **kwargs)

    def build_message_hub(self, message_hub: dict | None = None) -> MessageHub:
        """Make the hub that the run's losses and rates go to.

        Args:
            message_hub (dict, optional): Arguments of :class:`nepa_mm.engine.DeferredMessageHub`. ``name`` defaults to
                the experiment's.

        Returns:
            MessageHub: The hub.
        """
        return DeferredMessageHub.get_instance(**{'name': self.experiment_name, **(message_hub or {})})

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model; its batches go to the device without the host waiting for them.

        Args:
            model (nn.Module or dict): The model or its config.

        Returns:
            nn.Module: The model.
        """
        built: nn.Module = super().build_model(model)
        for module in built.modules():
            # mmengine's argument, which the preprocessors of mmseg and of mmpretrain's classifiers do not hand on. Not
            # for Apple's GPUs, which may read a batch after it is gone.
            if isinstance(module, BaseDataPreprocessor) and get_device() != 'mps':
                module._non_blocking = True
        return built
