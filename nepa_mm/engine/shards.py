"""Whole tensors and their shards: what a sharded model gives to, and takes from, a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import is_main_process
from torch import Tensor, nn


def layer_units(model: nn.Module) -> list[nn.Module]:
    """What a model is sharded by: every member of a ``ModuleList`` called ``layers``, mmpretrain's name for them.

    Args:
        model (nn.Module): Any model.

    Returns:
        list[nn.Module]: The layers, in the model's order.
    """
    lists = [m for name, m in model.named_modules() if name.split('.')[-1] == 'layers' and isinstance(m, nn.ModuleList)]
    return [layer for layers in lists for layer in layers]


def is_sharded(tensor: object) -> bool:
    """Whether something is a ``DTensor``; without importing torch.distributed.tensor where nothing is sharded."""
    return isinstance(tensor, Tensor) and hasattr(tensor, 'full_tensor')


def shard_like(tensor: Any, target: Tensor) -> Any:
    """The part of a whole tensor that this process holds of a sharded one.

    Args:
        tensor (Any): A whole tensor, the same on all processes. Whatever is none, or has another shape than
            ``target`` (such as an optimizer's count of steps), comes back as it is.
        target (Tensor): A parameter or buffer.

    Returns:
        Any: A ``DTensor`` that lies as ``target`` does, in ``tensor``'s dtype; ``tensor`` where ``target`` is no shard.
    """
    if not is_sharded(target) or not isinstance(tensor, Tensor) or is_sharded(tensor) or tensor.shape != target.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    lies: Any = target
    # Every process has read the same file: each takes its part, and nothing is sent.
    return distribute_tensor(tensor.to(lies.to_local().device), lies.device_mesh, lies.placements, src_data_rank=None)


def gather(tree: Any) -> Any:
    """Put shards together; all processes must call it with the same structure.

    Args:
        tree (Any): Nested mappings, lists and tuples with tensors, such as a checkpoint.

    Returns:
        Any: The same structure with whole tensors on the CPU, one at a time gathered, for the first process; on the
        others the whole tensors are on the meta device, which takes no memory.
    """
    if isinstance(tree, Mapping):
        return {key: gather(value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(gather(value) for value in tree)
    if not isinstance(tree, Tensor):
        return tree
    whole = tree.full_tensor() if is_sharded(tree) else tree  # type: ignore[attr-defined]
    return whole.detach().to('cpu' if is_main_process() else 'meta')


def shard_incoming(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook before ``load_state_dict``: whole tensors enter a sharded module as its shards.

    Args:
        module (nn.Module): The sharded module.
        state_dict (dict): What is about to be loaded; changed in place.
        prefix (str): What stands before the module's own names in it.
        *_: Further arguments of such a hook.
    """
    for name, target in module.state_dict().items():
        if prefix + name in state_dict:
            state_dict[prefix + name] = shard_like(state_dict[prefix + name], target)


def copy_shards(model: nn.Module, skeleton: nn.Module, memo: dict | None = None) -> nn.Module:
    """Copy a sharded model: an average of its weights, which lies as they do.

    Torch refuses to copy a module that it shards, so the modules come from a copy made before.

    Args:
        model (nn.Module): The sharded model.
        skeleton (nn.Module): The model as it was before sharding, on the meta device.
        memo (dict, optional): Of ``copy.deepcopy``; not used, since nothing but the two models is shared.

    Returns:
        nn.Module: The skeleton's modules with copies of the model's shards. It takes and gives state dicts as the model
        does; its forward pass is not for use.
    """
    twin = copy.deepcopy(skeleton)
    for name, param in model.named_parameters():
        owner, own_name = _owner(twin, name)
        owner._parameters[own_name] = nn.Parameter(param.detach().clone(), requires_grad=param.requires_grad)
    for name, buffer in model.named_buffers():
        owner, own_name = _owner(twin, name)
        owner._buffers[own_name] = torch.clone(buffer)
    twin.register_load_state_dict_pre_hook(shard_incoming)
    return twin


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, own_name = name.rpartition('.')
    return module.get_submodule(path), own_name
