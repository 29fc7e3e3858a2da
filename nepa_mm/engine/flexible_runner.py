"""mmengine's FlexibleRunner for models that are sharded over processes, with the checks of NEPARunner."""

from __future__ import annotations

from typing import Any

from mmengine._strategy import BaseStrategy
from mmengine.fileio import join_path
from mmengine.registry import RUNNERS
from mmengine.runner._flexible_runner import FlexibleRunner

from .fully_shard import FullyShardStrategy
from .hooks import ProbeHook
from .runner import CheckedRuns


class _FlexibleRuns(FlexibleRunner):
    """mmengine's runner with a ``save_checkpoint`` that does as its other runner's does."""

    strategy: FullyShardStrategy
    model: Any

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save a checkpoint; mmengine's own overrides what ``meta`` says and forgets ``backend_args``."""
        if file_client_args is not None:
            raise ValueError(f'NEPAFlexibleRunner: file_client_args={file_client_args!r}; use backend_args instead.')
        meta = dict(meta or {}, cfg=self.cfg.pretty_text, experiment_name=self.experiment_name)
        meta.setdefault('epoch', self.epoch + int(by_epoch))
        meta.setdefault('iter', self.iter + int(not by_epoch))
        if hasattr(self.train_dataloader.dataset, 'metainfo'):
            meta['dataset_meta'] = self.train_dataloader.dataset.metainfo
        self.strategy.save_checkpoint(
            str(join_path(out_dir, filename, backend_args=backend_args)),
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler and self.param_schedulers is not None,
            extra_ckpt=dict(meta=meta, message_hub=self.message_hub.state_dict()),
            callback=lambda checkpoint: self.call_hook('before_save_checkpoint', checkpoint=checkpoint),
            backend_args=backend_args,
        )


@RUNNERS.register_module()
class NEPAFlexibleRunner(CheckedRuns, _FlexibleRuns):
    """Train with a sharded model; the config is that of :class:`nepa_mm.engine.NEPARunner` plus ``strategy``.

    - Every checkpoint enters through :mod:`nepa_mm.checkpoints`, as in NEPARunner; mmengine's strategies read pickles
      and log at most a warning where nothing fits.
    - Hooks hear of the run before a checkpoint is loaded; mmengine's order is the other, in which an EMA hook has no
      average to load into.
    - ``compile`` of the config is obeyed; mmengine drops it on the way.
    - A run that is killed or stopped and resumed goes on as NEPARunner's does, with the same hooks.
    - ``auto_scale_lr`` counts gradient accumulation, and a run starts with its global batch and its lr.

    The arguments are those of :class:`mmengine.runner._flexible_runner.FlexibleRunner`. ``strategy`` defaults to
    ``dict(type='FullyShardStrategy')``.

    Raises:
        ValueError: ``strategy`` is of another type, or there is a ``ProbeHook``, which needs a whole backbone.
    """

    _hooks_know = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if any(isinstance(hook, ProbeHook) for hook in self.hooks):
            raise ValueError(
                'NEPAFlexibleRunner: ProbeHook calls the backbone on its own, which a sharded model cannot; take it '
                'out of custom_hooks and probe the checkpoints (tools/analysis/probe.py), or train with NEPARunner.'
            )
        # At once, as Runner does; on the CPU, since it is sharded when training or testing begins.
        self.model = self.strategy.build_model(self.model)

    @classmethod
    def from_cfg(cls, cfg: Any) -> NEPAFlexibleRunner:
        """Build a runner from a config.

        Args:
            cfg (Config): The config.

        Returns:
            NEPAFlexibleRunner: The runner.
        """
        runner = super().from_cfg(cfg)
        runner._compile = cfg.get('compile', False)
        return runner

    def build_strategy(self, strategy: BaseStrategy | dict | None = None, **kwargs: Any) -> BaseStrategy:
        """Build the strategy and give it what it has of the runner.

        Args:
            strategy (BaseStrategy or dict, optional): A :class:`nepa_mm.engine.FullyShardStrategy` or its config.
            **kwargs: Other arguments of mmengine's ``build_strategy``.

        Returns:
            BaseStrategy: The strategy.

        Raises:
            ValueError: It is of another type.
        """
        built = super().build_strategy(dict(type='FullyShardStrategy') if strategy is None else strategy, **kwargs)
        if not isinstance(built, FullyShardStrategy):
            raise ValueError(
                f'NEPAFlexibleRunner: strategy is {type(built).__name__}, which loads checkpoints unchecked; use '
                "strategy=dict(type='FullyShardStrategy'), or runner_type='NEPARunner' for DDP."
            )
        built.checked_load = self.load_checkpoint
        built.scale_lr = lambda: self.scale_lr(built.optim_wrapper, self._auto_scale_lr)
        return built

    def load_or_resume(self) -> None:
        """Load or resume, after the hooks have been told of the run."""
        self.call_hook('before_run')
        super().load_or_resume()

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks; ``before_run`` once per run, since mmengine calls it again after loading.

        Args:
            fn_name (str): Method of the hooks.
            **kwargs: Its arguments.
        """
        if fn_name == 'before_run' and self._hooks_know:
            return
        self._hooks_know = fn_name != 'after_run' and (self._hooks_know or fn_name == 'before_run')
        super().call_hook(fn_name, **kwargs)
