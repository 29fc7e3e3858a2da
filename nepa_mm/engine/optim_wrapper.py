"""Optimizer wrapper for autocast on CPU and GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from .finite_optim_wrapper import FiniteOptimWrapper

DTYPES = ('bfloat16', 'float16')


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(FiniteOptimWrapper):
    """Train in bfloat16 or float16 autocast, on whichever device the model lives.

    bfloat16 has the exponent range of float32, so gradients do not underflow and no loss scaler is
    needed: without one, a step is the plain one and nothing here asks for a GPU. mmengine's
    ``AmpOptimWrapper`` always builds a CUDA loss scaler and therefore refuses to run on a CPU.

    float16, for GPUs without bfloat16 (before Ampere), needs the scaler: it tries scales of the loss
    until one overflows, which :class:`FiniteOptimWrapper` leaves out like any other update.
    (``AmpOptimWrapper`` leaves it out as well, but waits for the GPU and tells nobody.) A loss that is
    itself NaN or infinite says nothing of the scale, which no scale would mend: it stays, where torch's
    scaler would halve it, for each bad image in 2,000 updates once more, until all gradients are 0. For
    what else is never finite the scale ends at 1 (or at an ``init_scale`` below).

    Weights, gradients and optimizer state stay in float32. A checkpoint of this wrapper loads into
    ``OptimWrapper`` and ``AmpOptimWrapper``, and theirs into this one.

    Args:
        dtype (str or torch.dtype): Autocast dtype: ``'bfloat16'`` or ``'float16'``. Defaults to
            ``'bfloat16'``.
        loss_scale (dict, optional): Arguments of :class:`torch.amp.GradScaler`, for float16 only:
            ``init_scale``, ``growth_factor``, ``backoff_factor``, ``growth_interval``. Defaults to
            torch's own.
        **kwargs: Arguments of :class:`FiniteOptimWrapper` (``optimizer``, ``accumulative_counts``,
            ``clip_grad``).

    Raises:
        ValueError: If ``dtype`` is another one, or there is a ``loss_scale`` without float16.
    """

    def __init__(
        self, dtype: str | torch.dtype = 'bfloat16', loss_scale: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        name = str(dtype).removeprefix('torch.')
        if name not in DTYPES:
            raise ValueError(
                f"AutocastOptimWrapper takes dtype='bfloat16' or 'float16', but got {dtype!r}; for float32 use "
                "type='FiniteOptimWrapper'."
            )
        if loss_scale is not None and name != 'float16':
            raise ValueError(f'AutocastOptimWrapper: {name} needs no loss scaler; remove loss_scale={loss_scale!r}.')
        super().__init__(**kwargs)
        self.cast_dtype = getattr(torch, name)
        self.loss_scaler: torch.amp.GradScaler | None = None
        self._bad_losses: Tensor | None = None
        if name == 'float16':
            device = self.optimizer.param_groups[0]['params'][0].device.type
            self.loss_scaler = torch.amp.GradScaler(device, **(loss_scale or {}))
            self._min_scale = min(1.0, self.loss_scaler._init_scale)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in autocast, besides what the base class does.

        Args:
            model (nn.Module): The model in training; its parameters tell the device.
        """
        # Not mmengine's get_device(): a model may be trained on the CPU of a machine with a GPU.
        device_type = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device_type, dtype=self.cast_dtype):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass, in float16 of the scaled loss; see :class:`FiniteOptimWrapper`.

        Args:
            loss (Tensor): Scalar.
            **kwargs: Arguments of :meth:`torch.Tensor.backward`.
        """
        if self.loss_scaler is None:
            self._backward(loss, loss, **kwargs)
            return
        bad = 1 - loss.detach().isfinite().float()
        self._bad_losses = bad if self._bad_losses is None else self._bad_losses + bad
        self._backward(loss, self.loss_scaler.scale(loss), **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Clip the gradients, in float16 scaled back, and update the weights, if all is finite.

        Args:
            **kwargs: Arguments of :meth:`torch.optim.Optimizer.step`.
        """
        if self.loss_scaler is None:
            super().step(**kwargs)
            return
        scaler = self.loss_scaler
        scaler.unscale_(self.optimizer)
        state = scaler._check_scale_growth_tracker('step')  # scale, and good updates in a row: changed in place
        before = [value.clone() for value in state]
        bad_losses, self._bad_losses = self._bad_losses, None
        if bad_losses is None:  # the gradients are not of backward()
            bad_losses = torch.zeros_like(before[0])
        all_reduce(bad_losses)  # the scale must stay the same in all processes
        self._step(before[0], bad_losses, **kwargs)
        # What unscale_ has found is what it goes by; its own step(), which waits for the device, is not needed.
        scaler.update()
        for now, then in zip(state, before, strict=True):
            now.copy_(torch.where(bad_losses > 0, then, now))
        state[0].clamp_(min=self._min_scale)

    def state_dict(self) -> dict:
        """State of the optimizer, and of the scaler if there is one."""
        state = super().state_dict()
        if self.loss_scaler is not None:
            state['loss_scaler'] = self.loss_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the state of any of the three wrappers.

        Args:
            state_dict (dict): What :meth:`state_dict` has given; a scaler's part is used if there is a scaler.
        """
        scaler = state_dict.pop('loss_scaler', None)
        if self.loss_scaler is not None and scaler:
            self.loss_scaler.load_state_dict(scaler)
        super().load_state_dict(state_dict)
