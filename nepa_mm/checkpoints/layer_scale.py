"""LayerScale folded into the linear layer before it."""

import re
from collections.abc import Mapping

from torch import Tensor

# The last linear layer of each residual branch, whose output LayerScale multiplies.
_BEFORE = {'gamma_1': 'attn.proj', 'gamma_2': 'mlp.fc2'}
_GAMMA = re.compile(r'(?P<layer>(.*\.)?layers\.\d+\.)(?P<gamma>gamma_[12])$')


def fold_layer_scale(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiply each LayerScale into the weight and bias of the linear layer before it, and drop it.

    The outputs stay the same up to rounding; ``NEPAViT(layer_scale_init=None)`` takes the result. There is no way back:
    a weight does not tell which factor it was multiplied with.

    Args:
        state_dict (Mapping[str, Tensor]): Our names, with or without a prefix.

    Returns:
        dict[str, Tensor]: A copy without ``gamma_1`` and ``gamma_2``; what is not concerned is shared.

    Raises:
        KeyError: A LayerScale stands without its linear layer.
    """
    folded = dict(state_dict)
    for name, gamma in state_dict.items():
        match = _GAMMA.match(name)
        if match:
            linear = match['layer'] + _BEFORE[match['gamma']]
            folded[f'{linear}.weight'] = folded[f'{linear}.weight'] * gamma[:, None]
            folded[f'{linear}.bias'] = folded[f'{linear}.bias'] * gamma
            del folded[name]
    return folded


def unit_layer_scale(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each layer without LayerScale one of ones, which multiplies by nothing; the release always has one.

    Args:
        state_dict (Mapping[str, Tensor]): Our names, with or without a prefix.

    Returns:
        dict[str, Tensor]: A copy with ``gamma_1`` and ``gamma_2`` in every layer.
    """
    scaled = dict(state_dict)
    for name, tensor in state_dict.items():
        for gamma, linear in _BEFORE.items():
            if re.search(rf'(^|\.)layers\.\d+\.{re.escape(linear)}\.bias$', name):
                scaled.setdefault(name.removesuffix(f'{linear}.bias') + gamma, tensor.new_ones(tensor.shape))
    return scaled
