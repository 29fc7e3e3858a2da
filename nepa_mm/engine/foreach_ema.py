"""An exponential moving average of the weights, in a few kernels."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ForeachEMA(ExponentialMovingAverage):
    """mmengine's ``ExponentialMovingAverage``, updated over all parameters at once.

    Its own calls a kernel for each parameter, and asks a tensor at every step whether it is the first. The values are
    the same, bit for bit, and so are the names in a checkpoint.

    Args:
        model (nn.Module): The model that is averaged.
        momentum (float): How much of the current weights an update takes in: 1 - decay. Defaults to 0.0002.
        interval (int): Update every so many steps. Defaults to 1.
        device (torch.device, optional): Where the average is kept. Defaults to where the model is.
        update_buffers (bool): Average buffers, too, instead of copying them; this goes one by one. Defaults to False.
    """

    steps: Tensor

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self.steps = self.steps.cpu()  # read at every step: not from a device that is at work

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in the weights of a model.

        Args:
            model (nn.Module): The model as it is now.
        """
        if self.update_buffers:
            super().update_parameters(model)
            return
        sources = dict(model.named_parameters())
        averages = [average.data for average in self.avg_parameters.values()]
        current = [sources[name].data for name in self.avg_parameters]
        if not _are_alike(averages, current):
            super().update_parameters(model)
            return
        past = int(self.steps.numpy())
        if past == 0:
            torch._foreach_copy_(averages, current)
        elif past % self.interval == 0:
            _lerp(averages, current, self.momentum)
        buffers = list(self.module.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(model.buffers()))
        self.steps += 1


def _are_alike(averages: list[Tensor], current: list[Tensor]) -> bool:
    """Plain floating-point tensors of one device: not spread over processes, not kept apart from the model."""
    devices = {tensor.device for tensor in (*averages, *current)}
    return len(devices) == 1 and all(type(t) is Tensor and t.is_floating_point() for t in (*averages, *current))


def _lerp(averages: list[Tensor], current: list[Tensor], weight: float | Tensor) -> None:
    if not isinstance(weight, Tensor):
        torch._foreach_lerp_(averages, current, weight)
        return
    # On its device: to make it a number, the kernel of above would wait for it.
    steps = torch._foreach_sub(current, averages)
    torch._foreach_mul_(steps, weight)
    torch._foreach_add_(averages, steps)
