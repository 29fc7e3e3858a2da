"""From the tokens of an image to one feature: what a probe sees of a layer."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..models.backbones.nepa_layers import NORM_EPS
from .errors import ProbeError

POOLINGS = ('avg', 'avg_norm', 'last', 'bos')


def pool_tokens(tokens: Tensor, pooling: str) -> Tensor:
    """One feature per image.

    Args:
        tokens (Tensor): (B, 1 + T, D), BOS first, as ``NEPAViT.encode`` returns them.
        pooling (str): 'avg', the mean of the patch tokens (what ``out_type='avg_featmap'`` gives); 'avg_norm', the same
            after a LayerNorm without weights on each token, so that a few tokens of large norm do not decide alone;
            'last', the last patch (``out_type='last_token'``); 'bos', the token before all patches.

    Returns:
        Tensor: (B, D), fp32.

    Raises:
        ProbeError: The pooling is unknown.
    """
    check_poolings([pooling])
    tokens = tokens.float()
    if pooling == 'avg':
        return tokens[:, 1:].mean(dim=1)
    if pooling == 'avg_norm':
        return F.layer_norm(tokens[:, 1:], tokens.shape[-1:], eps=NORM_EPS).mean(dim=1)
    return tokens[:, -1] if pooling == 'last' else tokens[:, 0]


def check_poolings(poolings: Sequence[str], causal: bool = False) -> tuple[str, ...]:
    """Refuse poolings that do not exist, or of which nothing can be read.

    Args:
        poolings (Sequence[str]): Names.
        causal (bool): Whether attention is causal. Defaults to False.

    Returns:
        tuple[str, ...]: The names, each once.

    Raises:
        ProbeError: None is given, one is unknown, or 'bos' is asked for under causal attention.
    """
    unknown = sorted(set(poolings) - set(POOLINGS))
    if unknown or not poolings:
        raise ProbeError(f'pooling {unknown or list(poolings)} is unknown; choose of {list(POOLINGS)}.')
    if causal and 'bos' in poolings:
        raise ProbeError(
            "pooling 'bos' is the same for every image under causal attention, where BOS sees nothing but itself; "
            'leave it away, or probe with bidirectional attention.'
        )
    return tuple(dict.fromkeys(poolings))
