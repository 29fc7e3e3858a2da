"""Patch embeddings of another patch size."""

from timm.layers import resample_patch_embed as _resample
from torch import Tensor

WEIGHT = 'patch_embed.proj.weight'


def is_weight(name: str) -> bool:
    """Whether a parameter of a backbone or a whole model is a patch embedding's weight."""
    return f'.{name}'.endswith(f'.{WEIGHT}')


def can_resample(weight: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a patch embedding differs from ``shape`` in nothing but the patch size.

    Args:
        weight (Tensor): (D, C, P, P).
        shape (tuple[int, ...]): The shape that is wanted.

    Returns:
        bool: False also where the two shapes are equal.
    """
    return weight.ndim == len(shape) == 4 and weight.shape[:2] == shape[:2] and weight.shape[2:] != shape[2:]


def resample_patch_embed(weight: Tensor, patch_size: int) -> Tensor:
    """Resample a patch embedding so that a resized patch keeps its embedding, as well as that can be done.

    The least-squares answer of FlexiViT (arXiv 2212.08013): to a patch that was bicubically resized along with it, the
    new weights answer as the old ones did to the patch before. Exact for larger patches, an approximation for smaller.

    Args:
        weight (Tensor): (D, C, P, P).
        patch_size (int): The new side in pixels.

    Returns:
        Tensor: (D, C, ``patch_size``, ``patch_size``), in the dtype of ``weight``; computed in fp32.
    """
    return _resample(weight, [patch_size, patch_size])
