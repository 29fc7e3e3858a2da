"""Optimizer wrapper for bfloat16 autocast on CPU and GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner.amp import autocast
from torch import nn


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Train in bfloat16 autocast, on whichever device the model lives.

    bfloat16 has the exponent range of float32, so gradients do not underflow and no loss scaler is
    needed: without one, a step is the plain :class:`mmengine.optim.OptimWrapper` step and nothing
    here asks for a GPU. mmengine's ``AmpOptimWrapper`` always builds a CUDA loss scaler and
    therefore refuses to run on a CPU.

    Weights, gradients and optimizer state stay in float32. A checkpoint of this wrapper loads into
    ``OptimWrapper`` and one of ``OptimWrapper`` or ``AmpOptimWrapper`` loads into this one.

    Args:
        dtype (str or torch.dtype): Autocast dtype; ``'bfloat16'`` is the only one accepted.
            Defaults to ``'bfloat16'``.
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper` (``optimizer``,
            ``accumulative_counts``, ``clip_grad``).

    Raises:
        ValueError: If ``dtype`` is not bfloat16.
    """

    def __init__(self, dtype: str | torch.dtype = 'bfloat16', **kwargs: Any) -> None:
        name = str(dtype).removeprefix('torch.')
        if name == 'float16':
            raise ValueError(
                "AutocastOptimWrapper got dtype='float16', which needs a loss scaler; use "
                "type='AmpOptimWrapper', dtype='float16' (GPU only), or keep dtype='bfloat16'."
            )
        if name != 'bfloat16':
            raise ValueError(
                f"AutocastOptimWrapper takes dtype='bfloat16', but got {dtype!r}; for float32 use type='OptimWrapper'."
            )
        super().__init__(**kwargs)
        self.cast_dtype = torch.bfloat16

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in autocast, besides what the base class does.

        Args:
            model (nn.Module): The model in training; its parameters tell the device.
        """
        # Not mmengine's get_device(): a model may be trained on the CPU of a machine with a GPU.
        device_type = next(model.parameters()).device.type
        with super().optim_context(model), autocast(device_type, dtype=self.cast_dtype):
            yield
