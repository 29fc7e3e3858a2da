"""Which kernels an optimizer steps with is said by the config, not by the checkpoint that a run goes on from."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

# Settings of torch's optimizers that change how a step is computed and not what; it saves them beside lr and betas.
KERNEL_SETTINGS = ('fused', 'foreach', 'capturable')


def keep_kernels(optimizer: Optimizer) -> None:
    """Let an optimizer keep its kernels when a state is loaded.

    torch restores ``fused`` and its like from the checkpoint, so a run that was begun without fused kernels would go on
    without them for good, whatever its config says.

    Args:
        optimizer (Optimizer): Any optimizer of torch's. It is changed in place.
    """
    optimizer.register_load_state_dict_pre_hook(_with_own_kernels)


def _with_own_kernels(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    own = [{key: group[key] for key in KERNEL_SETTINGS if key in group} for group in optimizer.param_groups]
    loaded = state_dict['param_groups']
    if len(loaded) != len(own):
        return state_dict  # which torch refuses, with its own words
    return state_dict | {'param_groups': [group | kernels for group, kernels in zip(loaded, own, strict=True)]}
