"""Training that shards the model over the processes, as a strategy of mmengine's FlexibleRunner."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import mmengine
import torch
from mmengine._strategy import DDPStrategy
from mmengine.device import get_device
from mmengine.dist import is_distributed, is_main_process
from mmengine.model import BaseDataPreprocessor, BaseModule, revert_sync_batchnorm
from mmengine.registry import STRATEGIES
from mmengine.runner.checkpoint import save_checkpoint
from mmengine.utils import get_git_hash
from torch import nn

from nepa_mm.checkpoints import init_weights_checked

from .compiled_loss import compile_loss
from .cpu_processes import init_cpu_process_group
from .shards import copy_shards, gather, layer_units, shard_incoming, shard_like


@STRATEGIES.register_module()
class FullyShardStrategy(DDPStrategy):
    """Shard parameters, gradients and optimizer state over all processes (FSDP2, ``torch.distributed.fsdp``).

    Each transformer layer is one unit, gathered for its forward and its backward pass; what stands around the layers
    (patch embedding, tokens, norms, heads) is the last one. Parameters keep their names and shapes, so parameter
    groups, schedules, hooks and EMA are those of an unsharded run, and so are its checkpoints: whole tensors, written
    by the first process, which load with and without sharding and on any number of processes. Parameters are
    gathered and gradients averaged in float32, as DDP does; autocast decides what a product is computed in.

    mmengine's own ``FSDPStrategy`` wraps in FSDP1, whose parameters are flat pieces while the optimizer is built: a
    rule for 1-D parameters (no weight decay on norms) then holds for all of them in silence. Its resuming passes the
    optimizer's state in the argument order of torch 2.0, its EMA cannot be copied, and it needs a GPU.

    Without a process group (``--launcher none``) nothing is sharded, which the log says.

    Args:
        reshard_after_forward (bool): Free a layer's gathered parameters after its forward pass and gather them again
            in the backward pass; False keeps them: more memory, less traffic. Defaults to True.
        **kwargs: Arguments of :class:`mmengine._strategy.BaseStrategy`.

    Raises:
        ValueError: The model has no list of ``layers`` to shard by.
        ImportError: torch is older than 2.6, the first that has ``torch.distributed.fsdp.fully_shard``.
    """

    # Given by the runner: reads a checkpoint into the model, checked, and calls the hooks.
    checked_load: Callable[[str], dict[str, Any]]
    # Given by the runner: scales and logs the learning rate.
    scale_lr: Callable[[], None]

    def __init__(self, *, reshard_after_forward: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reshard_after_forward = reshard_after_forward

    # ------------------------------------------------------------------ set-up

    def _setup_distributed(self, launcher: str = 'pytorch', backend: str = 'nccl', **kwargs: Any) -> None:
        """Join the process group; over gloo where there is no GPU."""
        if get_device() == 'cpu' and not is_distributed():
            init_cpu_process_group(launcher, 'gloo' if backend == 'nccl' else backend, kwargs.get('timeout'))
        else:
            super()._setup_distributed(launcher, backend, **kwargs)

    def _init_model_weights(self, model: nn.Module) -> nn.Module:
        """Initialise the model; what its ``init_cfg`` names enters through the checked loader."""
        if isinstance(model, BaseModule):
            model.init_weights = partial(init_weights_checked, model, model.init_weights)
        return super()._init_model_weights(model)

    def compile_model(self, model: nn.Module, compile: dict | bool = False) -> nn.Module:
        """Compile the loss.

        Args:
            model (nn.Module): The model.
            compile (dict or bool): See :func:`compile_loss`. Defaults to False.

        Returns:
            nn.Module: The model.
        """
        if isinstance(compile, dict) and compile.get('target') == 'train_step':
            compile = {k: v for k, v in compile.items() if k != 'target'}  # which mmengine's runner fills in
        compile_loss(model, compile)
        return model

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        """Shard the model in place, or move it to its device where there is one process without a group."""
        if not is_distributed():
            self.logger.info('FullyShardStrategy: one process without a launcher; nothing is sharded.')
            return revert_sync_batchnorm(model).to(get_device())
        fully_shard = _import_fully_shard()
        from torch.distributed.device_mesh import init_device_mesh

        units = layer_units(model)
        if not units:
            raise ValueError(
                f'FullyShardStrategy: {type(model).__name__} has no ModuleList called "layers", by which it shards; '
                'use a backbone that has one, such as NEPAViT, or NEPARunner without a strategy.'
            )
        # SyncBN needs GPUs.
        model = revert_sync_batchnorm(model) if get_device() == 'cpu' else self.convert_model(model)
        skeleton = copy.deepcopy(model).to('meta')  # what an average is built from; fully_shard forbids copies
        for module in model.modules():
            if isinstance(module, BaseDataPreprocessor):
                module.to(get_device())  # it remembers the device, which sharding would not tell it
        options = dict(
            mesh=init_device_mesh(get_device(), (self.world_size,)), reshard_after_forward=self.reshard_after_forward
        )
        whole = sum(p.numel() for p in model.parameters())
        for unit in units:
            fully_shard(unit, **options)
        fully_shard(model, **options)
        model.register_load_state_dict_pre_hook(shard_incoming)
        model.__deepcopy__ = partial(copy_shards, model, skeleton)  # type: ignore[assignment]
        own = sum(shard.to_local().numel() for shard in cast(Any, model.parameters()))
        self.logger.info(
            f'FullyShardStrategy: {whole:,} parameters in {len(units)} layers and the rest, sharded over '
            f'{self.world_size} processes; this one holds {own:,}.'
        )
        return model

    def _scale_lr(self) -> None:
        """Leave it to the runner, which counts gradient accumulation."""
        self.scale_lr()

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(
        self,
        filename: str,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        extra_ckpt: dict | None = None,
        callback: Callable | None = None,
        backend_args: dict | None = None,
    ) -> None:
        """Gather the shards, on all processes, and let the first one write them: a file as of an unsharded run.

        Args:
            filename (str): The file.
            save_optimizer (bool): Whether to save the optimizer's state. Defaults to True.
            save_param_scheduler (bool): Whether to save the schedulers' state. Defaults to True.
            extra_ckpt (dict, optional): What else the file holds.
            callback (Callable, optional): Called with the checkpoint, still in shards, on all processes.
            backend_args (dict, optional): Where to write it to. Defaults to None: as ``filename`` says.
        """
        state = dict(extra_ckpt or {}) | dict(state_dict=self.model.state_dict())
        state['meta'] = dict(
            state.get('meta') or {},
            seed=self.seed,
            time=time.strftime('%Y%m%d_%H%M%S', time.localtime()),
            mmengine_version=mmengine.__version__ + get_git_hash(),
        )
        if save_optimizer and hasattr(self, 'optim_wrapper'):
            state['optimizer'] = self.optim_state_dict()
        if save_param_scheduler and hasattr(self, 'param_schedulers'):
            state['param_schedulers'] = self.scheduler_state_dict()
        if callback is not None:
            callback(state)  # an EMA hook swaps the two sets of weights here
        state = gather(state)
        if is_main_process():
            save_checkpoint(state, filename, backend_args=backend_args)

    def load_checkpoint(self, filename: str, **kwargs: Any) -> dict:
        """Load a checkpoint into the model through the runner's checked loader.

        Args:
            filename (str): What :func:`nepa_mm.checkpoints.read_checkpoint` reads.
            **kwargs: Not used; mmengine's resuming passes a device, but whole tensors are read on the CPU.

        Returns:
            dict: What stands beside the weights in the file.
        """
        return self.checked_load(filename)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load the optimizer's state, as any run saves it.

        Args:
            state_dict (dict): Whole tensors, by number of the parameter; ``OptimWrapper.state_dict()``.
        """
        params = [p for group in self.optim_wrapper.param_groups for p in group['params']]
        state = {i: {k: shard_like(v, params[i]) for k, v in s.items()} for i, s in state_dict['state'].items()}
        super().load_optim_state_dict(state_dict | dict(state=state))


def _import_fully_shard() -> Callable:
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise ImportError(
            f'FullyShardStrategy needs torch.distributed.fsdp.fully_shard, which torch {torch.__version__} lacks; '
            'install torch 2.6 or newer, or train with DDP (runner_type=NEPARunner).'
        ) from error
    return fully_shard
