"""Torch's FLOP counter, in all versions of torch alike."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry


def flop_counter() -> FlopCounterMode:
    """Count FLOPs, also those of the CPU's own attention, which torch before 2.15 leaves out."""
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _like(aten._scaled_dot_product_flash_attention),
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _like(
                aten._scaled_dot_product_flash_attention_backward
            ),
        },
    )


def _like(operator: Any) -> Callable[..., int]:
    """The formula of another operator, whose first arguments are the same."""

    def formula(*args: Any, **kwargs: Any) -> int:
        return flop_registry[operator](*args, **kwargs)

    formula._get_raw = True  # type: ignore[attr-defined]  # it takes the shapes itself
    return formula
