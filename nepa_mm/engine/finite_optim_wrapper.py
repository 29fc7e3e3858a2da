"""Optimizer wrapper that leaves out an update whose loss or gradient is NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase

from .kernels import keep_kernels


@dataclass
class Update:
    """What is known of an update of the weights, on the model's device: reading it is left to who needs it.

    Args:
        skipped (Tensor): 0-dim fp32: 1 where the update was left out, 0 where it was done.
        grad_norm (Tensor): 0-dim fp32, before clipping.
        norms (Tensor): (number of gradients,), norm of each, before clipping.
        params (list[nn.Parameter]): Whose gradients they are.
        scale (Tensor | None): 0-dim: the loss scale that the gradients were found with; None without a scaler.
        bad_losses (Tensor | None): 0-dim: how many losses led to it, in all processes, that were themselves NaN or
            infinite; None without a scaler, where it makes no difference.
    """

    skipped: Tensor
    grad_norm: Tensor
    norms: Tensor
    params: list[nn.Parameter] = field(repr=False)
    scale: Tensor | None = None
    bad_losses: Tensor | None = None


@OPTIM_WRAPPERS.register_module()
class FiniteOptimWrapper(OptimWrapper):
    """mmengine's wrapper, without updates that would write NaN or infinity into the weights.

    An update is left out whole if the norm of its gradients is not finite: weights, optimizer state and the count of
    its steps stay, the gradients are dropped, and running statistics of BatchNorm go back to where they were before the
    forward passes that led to it. Schedules go on. What happened stands in :attr:`last_update`; it is
    :class:`nepa_mm.engine.BadNumbersHook` that counts, warns and stops.

    - A loss that is not finite makes its gradient NaN, even where the bad part of it has none. So a way to go wrong
      ends in the gradients, and there they add up: over the iterations of ``accumulative_counts`` and, reduced, over
      processes. One bad image in one of them leaves out the same update in all. (Not where the way back stops: the mean
      cross entropy of no label at all is NaN, and torch gives it a gradient of 0.)
    - Whether to update is decided on the device, without waiting for it: torch's fused optimizers
      (``optimizer=dict(fused=True)``) take ``found_inf`` and then do nothing, as they do for a loss scaler. Other
      optimizers, and fused SGD until it has its momentum, need the answer in Python, which costs nothing on a CPU and
      on a GPU waits for it once per update.
    - The norm is the one that clips. Without ``clip_grad`` it takes one more pass over the gradients.

    Args:
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper` (``optimizer``, ``accumulative_counts``,
            ``clip_grad``).

    Attributes:
        last_update (Update | None): The last update, done or left out; None before the first.
        num_updates (int): How many there were.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        keep_kernels(self.optimizer)
        self.last_update: Update | None = None
        self.num_updates = 0
        self._statistics: _Statistics | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Prepare for the forward pass, besides what the base class does.

        Args:
            model (nn.Module): The model in training, wrapped or not.

        Raises:
            TypeError: If the model is sharded by torch's first FSDP, whose gradients do not say which part of the whole
                they are.
        """
        if isinstance(model, FullyShardedDataParallel):
            raise TypeError(
                f'{type(self).__name__}: {type(model).__name__} shards with FSDP1, where each process would clip by '
                "the norm of its own part; shard with strategy=dict(type='FullyShardStrategy') instead."
            )
        if self._statistics is None:
            self._statistics = _Statistics(model)
        self._statistics.keep()
        with super().optim_context(model):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass, which begins with NaN where the loss is not finite.

        Args:
            loss (Tensor): Scalar.
            **kwargs: Arguments of :meth:`torch.Tensor.backward`.
        """
        self._backward(loss, loss, **kwargs)

    def _backward(self, loss: Tensor, scaled: Tensor, **kwargs: Any) -> None:
        kwargs.setdefault('gradient', loss.detach() * 0 + 1)  # exactly 1, or NaN
        scaled.backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        """Clip the gradients and update the weights, if all is finite.

        Args:
            **kwargs: Arguments of :meth:`torch.optim.Optimizer.step`.
        """
        self._step(**kwargs)

    def _step(self, scale: Tensor | None = None, bad_losses: Tensor | None = None, **kwargs: Any) -> None:
        params = [p for group in self.optimizer.param_groups for p in group['params'] if p.grad is not None]
        if not params:
            self.optimizer.step(**kwargs)
            return
        norms, total = self._norms_and_clip(params)
        skipped = 1 - total.isfinite().float()
        self.last_update = Update(skipped, total, norms, params, scale, bad_losses)
        self.num_updates += 1
        if self._skips_on_device(params):
            self.optimizer.found_inf = skipped
            try:
                self.optimizer.step(**kwargs)
            finally:
                del self.optimizer.found_inf
        elif not skipped:
            self.optimizer.step(**kwargs)
        if self._statistics is not None:
            self._statistics.take_back_if(skipped)

    def _norms_and_clip(self, params: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
        """Norm of each gradient and of all of them; clips as ``clip_grad`` says."""
        clip = dict(self.clip_grad_kwargs or {})
        by_norm = 'max_norm' in clip
        norm_type = float(clip.get('norm_type', 2))
        grads = [p.grad for p in params if p.grad is not None]
        with torch.no_grad():
            norms = torch.stack(torch._foreach_norm(grads, norm_type))
            total = torch.linalg.vector_norm(norms, norm_type)
            if by_norm:
                torch.nn.utils.clip_grads_with_norm_(params, clip['max_norm'], total, clip.get('foreach'))
            elif clip:
                torch.nn.utils.clip_grad_value_(params, **clip)
            # Sharded over processes (FSDP): these add up what each has, and are the same in all.
            norms, total = (_whole(norm).float() for norm in (norms, total))
        self.message_hub.update_scalar('train/grad_norm', total)
        return norms, total

    def _skips_on_device(self, params: list[nn.Parameter]) -> bool:
        # The mark is set where `fused` is asked for at first; each group steps as it says itself.
        return (
            getattr(self.optimizer, '_step_supports_amp_scaling', False)
            and all(group.get('fused') for group in self.optimizer.param_groups)
            and self._has_momentum(params)
        )

    def _has_momentum(self, params: list[nn.Parameter]) -> bool:
        """Whether these parameters have theirs, if any: torch's fused SGD takes memory for it and does not clear it."""
        with_momentum = {p for g in self.optimizer.param_groups if g.get('momentum') for p in g['params']}
        states = self.optimizer.state
        return all(states.get(p, {}).get('momentum_buffer') is not None for p in params if p in with_momentum)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class _Statistics:
    """Running statistics of a model's normalisation layers, which a forward pass changes before anything is checked."""

    def __init__(self, model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, _NormBase)]
        self.buffers = [b for m in layers for b in (m.running_mean, m.running_var) if b is not None]
        self.kept: Tensor | None = None

    def keep(self) -> None:
        """Remember them, unless they are remembered since the last update."""
        if self.buffers and self.kept is None:
            self.kept = self._together()

    @torch.no_grad()
    def take_back_if(self, skipped: Tensor) -> None:
        """Put back what :meth:`keep` has seen where ``skipped`` is 1, on the device."""
        if self.kept is None:
            return
        values = torch.where(skipped > 0, self.kept, self._together())
        parts = values.split([b.numel() for b in self.buffers])
        torch._foreach_copy_(self.buffers, [part.view_as(b) for part, b in zip(parts, self.buffers, strict=True)])
        self.kept = None

    def _together(self) -> Tensor:
        return torch.cat([b.detach().flatten() for b in self.buffers])
