"""The runner: checked checkpoint loading, CPU clusters and honest batch sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.model import BaseModule, BaseTTAModel, is_model_wrapper, revert_sync_batchnorm
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.registry import MODEL_WRAPPERS, RUNNERS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from nepa_mm.checkpoints import (
    CheckpointError,
    init_weights_checked,
    load_state_dict,
    read_checkpoint,
    read_weights,
    to_own_names,
)
from nepa_mm.checkpoints.loader import select_weights

from .checked_data import CheckedDataRuns
from .compiled_loss import compile_loss
from .cpu_processes import init_cpu_process_group
from .light_runs import LightRuns
from .resuming import ResumableRuns
from .stopped_workers import StoppedWorkers


class CheckedRuns(CheckedDataRuns, ResumableRuns, LightRuns, StoppedWorkers):
    """What :class:`NEPARunner` and :class:`NEPAFlexibleRunner` share: checked loading and honest batch sizes.

    A class that inherits from this and, after it, from mmengine's ``Runner`` or ``FlexibleRunner``.
    """

    # What the checkpoint being loaded is for: 'load_from', 'resume' or 'test'.
    _purpose: str = 'load_from'

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop.

        Args:
            loop (BaseLoop or dict): The loop or its config.

        Returns:
            BaseLoop: The loop.

        Raises:
            ValueError: If an epoch would be empty: ``drop_last`` and fewer images than a batch.
        """
        loop = super().build_train_loop(loop)
        if isinstance(loop, EpochBasedTrainLoop) and len(loop.dataloader) == 0:
            raise ValueError(
                f'the training set has {len(loop.dataloader.dataset)} images, which give no batch of '
                f'{_batch_size(loop.dataloader)} per process: lower train_dataloader.batch_size (and pass '
                '--auto-scale-lr), or check train_dataloader.dataset.data_root.'
            )
        return loop

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the lr to the global batch if ``auto_scale_lr`` is enabled, and log both.

        mmengine's own takes processes x batch per process for the batch of an update and forgets
        ``accumulative_counts``: 8 x 32 accumulated 16 times is a batch of 4096, not of 256, and
        would train with a sixteenth of the lr. It also leaves out the entry that the log's
        ``base_lr`` is read from.

        Args:
            optim_wrapper (OptimWrapper): The wrapper whose lr is scaled.
            auto_scale_lr (dict, optional): ``base_batch_size`` (the batch that the lr of the config
                was chosen for) and ``enable``.

        Raises:
            ValueError: If ``auto_scale_lr`` is enabled without ``base_batch_size``.
            RuntimeError: If the schedulers, which store the initial lr, have been built already.
        """
        auto_scale_lr = auto_scale_lr or {}
        enabled = auto_scale_lr.get('enable', False)
        base = auto_scale_lr.get('base_batch_size')
        if enabled and not base:
            raise ValueError(
                f'auto_scale_lr={dict(auto_scale_lr)} is enabled without base_batch_size; give the '
                'global batch size that the lr of the config was chosen for.'
            )
        if enabled and _any_scheduler(self.param_schedulers):
            raise RuntimeError('scale_lr must run before the parameter schedulers are built: they store the lr.')
        batch = _batch_size(self._train_dataloader)
        many = isinstance(optim_wrapper, OptimWrapperDict)
        wrappers = dict(optim_wrapper.items()) if many else {'': optim_wrapper}
        for name, wrapper in wrappers.items():
            count = wrapper._accumulative_counts
            total = self.world_size * batch * count
            if enabled:
                # param_groups ends with base_param_settings, where the log's base_lr comes from
                for group in wrapper.param_groups:
                    group['lr'] *= total / base
            rates = sorted({group['lr'] for group in wrapper.optimizer.param_groups})
            lr = f'{rates[-1]:.4g}' + (f' (lowest group {rates[0]:.4g})' if len(rates) > 1 else '')
            line = (
                (f'{name}: ' if many else '')
                + f'global batch {total} ({self.world_size} processes x {batch} per process x '
                f'{count} accumulation), base batch {base}, lr {lr}'
            )
            if enabled:
                self.logger.info(f'{line}, scaled by {total / base:.4g}')
            elif base and total != base:
                self.logger.warning(
                    f'{line}: the lr was chosen for another batch and is NOT scaled; pass '
                    '--auto-scale-lr (auto_scale_lr.enable=True) unless this is meant.'
                )
            else:
                self.logger.info(line)

    def val(self) -> dict:
        """Validate; the checkpoint, if one is given, must hold every key of the model."""
        with self._loading_for('test'):
            return super().val()

    def test(self) -> dict:
        """Test; the checkpoint, if one is given, must hold every key of the model."""
        with self._loading_for('test'):
            return super().test()

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume training; the checkpoint must hold the model's keys and no others.

        Args:
            filename (str): The checkpoint.
            *args: Further arguments of :meth:`mmengine.runner.Runner.resume`.
            **kwargs: As above.
        """
        with self._loading_for('resume'):
            super().resume(filename, *args, **kwargs)

    @contextmanager
    def _loading_for(self, purpose: str) -> Iterator[None]:
        before, self._purpose = self._purpose, purpose
        try:
            yield
        finally:
            self._purpose = before

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> dict:
        """Load a checkpoint into the model and log what matched.

        Args:
            filename (str): What :func:`nepa_mm.checkpoints.read_checkpoint` reads: a file, a release
                directory, ``hf://OWNER/NAME[@REVISION]`` or a URL.
            map_location (str or callable): Where tensors are put. Defaults to ``'cpu'``.
            strict (bool): Refuse any difference between the model's keys and the file's. Resuming
                is strict and testing refuses missing and reshaped keys in any case.
            revise_keys (Sequence[tuple[str, str]]): Regular expressions and replacements for the
                keys of the file. Defaults to dropping the ``module.`` of a wrapped model.

        Returns:
            dict: The checkpoint as read, its weights under ``'state_dict'``.

        Raises:
            CheckpointError: If the file cannot be read safely, too few keys match, or what a run
                needs to resume is not in it.
        """
        model = self.model.module if is_model_wrapper(self.model) else self.model
        model = model.module if isinstance(model, BaseTTAModel) else model
        chosen = {
            'load_from': self.cfg.get('load_from_weights', 'raw'),
            'resume': None,  # needs both
            'test': self.cfg.get('test_weights'),
        }[self._purpose]
        if chosen is None:
            checkpoint, source = read_checkpoint(filename, map_location=map_location), str(filename)
        else:
            # Chosen before the hooks see it: an EMA hook would start, or test, from whichever it prefers.
            checkpoint, source = read_weights(filename, chosen, map_location)
        if self._purpose == 'resume':
            _check_resumable(checkpoint, source)
            self.check_data(checkpoint['meta'].get('data'), source)
        if 'ema_state_dict' not in checkpoint:
            # For the hooks too: an EMA hook copies by name, and what it misses stays random in silence.
            checkpoint['state_dict'] = to_own_names(model, checkpoint['state_dict'], source)
        in_ema = {id(tensor) for tensor in checkpoint.get('ema_state_dict', {}).values()}
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)

        state_dict = checkpoint['state_dict']
        if 'ema_state_dict' in checkpoint:
            # EMAHook saves the averaged weights as state_dict, and where the config has the hook it
            # may just have put the raw ones back there.
            average = checkpoint['ema_state_dict']
            swapped = any(id(tensor) in in_ema for tensor in state_dict.values())
            both = dict(state_dict=average, ema_state_dict=state_dict) if swapped else checkpoint
            # Resuming: the optimizer's state belongs to the raw ones. Testing: what the hooks have left there.
            weights = 'raw' if self._purpose == 'resume' or swapped else 'ema'
            state_dict, source = select_weights(both, weights, source)
        for pattern, replacement in revise_keys:
            state_dict = {re.sub(pattern, replacement, k): v for k, v in state_dict.items()}

        strict = strict or self._purpose == 'resume'
        report = load_state_dict(model, state_dict, source=source, strict=strict, checkpoint=checkpoint)
        self.logger.info(str(report))
        absent = report.missing + report.reshaped
        if self._purpose == 'resume':
            absent += report.filled  # a start for fine-tuning, but not where a run has stopped
        if self._purpose != 'load_from' and absent:
            raise CheckpointError(
                f'{source} does not hold every weight of the model; {self._purpose} with the config '
                f'it was trained with.\n{report}'
            )
        self._has_loaded = True
        return checkpoint


@RUNNERS.register_module()
class NEPARunner(CheckedRuns, Runner):
    """mmengine's runner with the things that go wrong in silence put right.

    - Every checkpoint (``load_from``, ``resume``, the one under test) enters through
      :mod:`nepa_mm.checkpoints`: it is read without running code from the file, what matched is
      counted and logged, and a file that matches too little is refused. Resuming and testing need
      every key of the model.
    - Processes without a GPU form a gloo group, wrap the model for the CPU and turn SyncBN, which
      exists on GPUs only, into BN.
    - ``auto_scale_lr`` counts gradient accumulation.
    - A run starts with its global batch, the batch its lr was written for, and its lr.
    - A run that was killed goes on as if it had not been (:class:`nepa_mm.engine.resuming.ResumableRuns`).

    The arguments are those of :class:`mmengine.runner.Runner`. Beside them the config may hold
    ``load_from_weights='raw'|'ema'``, which weights ``load_from`` takes of a checkpoint that holds
    both (defaults to ``'raw'``, as the release transfers), and ``test_weights='raw'|'ema'``, which
    weights a test takes (by default what mmengine does: the average where a run's checkpoint has
    one), and ``auto_resume=True``, to go on from the last whole checkpoint of the work directory.
    """

    def setup_env(self, env_cfg: dict) -> None:
        """Set up the environment; without a GPU the process group is made here.

        Args:
            env_cfg (dict): The ``env_cfg`` of the config.
        """
        self._cpu_backend: tuple[str, str] | None = None
        if self.distributed and get_device() == 'cpu' and not is_distributed():
            dist_cfg = env_cfg.get('dist_cfg', {})
            asked = dist_cfg.get('backend', 'nccl')
            backend = 'gloo' if asked == 'nccl' else asked
            init_cpu_process_group(self.launcher, backend, dist_cfg.get('timeout'))
            self._cpu_backend = (asked, backend)
        super().setup_env(env_cfg)

    def _init_model_weights(self) -> None:
        """Initialise the model; what its own ``init_cfg`` names enters through the checked loader, too."""
        model: Any = self.model.module if is_model_wrapper(self.model) else self.model
        if isinstance(model, BaseModule):
            model.init_weights = partial(init_weights_checked, model, model.init_weights)
        super()._init_model_weights()

    def _maybe_compile(self, target: str) -> None:
        """Compile the loss as the config's ``compile`` says; evaluation is not compiled."""
        if target == 'train_step':
            model: Any = self.model.module if is_model_wrapper(self.model) else self.model
            compile_loss(model, self.cfg.get('compile'))

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for distributed training; on the CPU without SyncBN and device ids.

        Args:
            model_wrapper_cfg (dict, optional): Config of the wrapper.
            model (nn.Module): The model.

        Returns:
            nn.Module: The wrapped model, or the model itself in a single-process run.
        """
        if not self.distributed or get_device() != 'cpu' or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        if self._cpu_backend is not None:
            asked, backend = self._cpu_backend
            self.logger.info(
                f'No GPU: {self.world_size} CPU processes over {backend}'
                + (f' (the config asks for {asked}, which needs GPUs).' if asked != backend else '.')
            )
        names = [name for name, m in model.named_modules() if isinstance(m, SyncBatchNorm)]
        sync_bn = self.cfg.get('sync_bn', None)
        if names or sync_bn is not None:
            self.logger.info(
                f'SyncBN needs GPUs: {len(names)} SyncBN layers become BN, each process normalises '
                'by its own part of the batch' + (f"; sync_bn='{sync_bn}' is ignored." if sync_bn else '.')
            )
        model = revert_sync_batchnorm(model)
        # mmengine gives the local rank as device id and may convert to SyncBN again: DDP refuses
        # both for a model on the CPU.
        if model_wrapper_cfg is None:
            wrapper = dict(
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', False),
            )
        else:
            wrapper = dict(model_wrapper_cfg)
        kind = wrapper.setdefault('type', 'MMDistributedDataParallel')
        kind = MODEL_WRAPPERS.get(kind) if isinstance(kind, str) else kind
        if kind is not None and issubclass(kind, DistributedDataParallel):
            wrapper['device_ids'] = None
        if sync_bn is None:
            return super().wrap_model(wrapper, model)
        self.cfg.sync_bn = None
        try:
            return super().wrap_model(wrapper, model)
        finally:
            self.cfg.sync_bn = sync_bn


def _check_resumable(checkpoint: dict, source: str) -> None:
    """Refuse to resume from weights alone, and drop what mmengine would run."""
    absent = [key for key in ('meta', 'optimizer') if key not in checkpoint]
    if absent:
        raise CheckpointError(
            f'{source} holds no {" and no ".join(absent)}, so no run can be resumed from it. To start a new run from '
            'its weights, name it as load_from= or in init_cfg, without --resume.'
        )
    # Text of a config, from mmengine's predecessor; Runner.resume executes it.
    checkpoint['meta'].pop('config', None)


def _batch_size(dataloader: DataLoader | dict) -> int:
    """Batch size per process, of a data loader or its config, with or without a batch sampler."""
    if isinstance(dataloader, DataLoader):
        return dataloader.batch_sampler.batch_size  # type: ignore[union-attr]
    return dataloader.get('batch_size') or dataloader['batch_sampler']['batch_size']


def _any_scheduler(schedulers: Any) -> bool:
    """Whether a (nested) list or dict of scheduler configs holds a scheduler built already."""
    if isinstance(schedulers, dict):
        return any(_any_scheduler(s) for s in schedulers.values())
    if isinstance(schedulers, (list, tuple)):
        return any(_any_scheduler(s) for s in schedulers)
    return isinstance(schedulers, _ParamScheduler)
