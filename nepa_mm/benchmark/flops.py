"""Floating-point operations of a NEPAViT, by formula from its config."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nepa_mm.models import NEPAViT
from nepa_mm.models.backbones.archs import check_arch

# Matrix products in the MLP of each kind, per hidden channel.
MLP_PRODUCTS = {'gelu': 2, 'swiglu': 3}


@dataclass(frozen=True)
class ViTShape:
    """What the matrix products of a NEPAViT depend on.

    Args:
        embed_dims (int): Width D.
        num_layers (int): Layers that run: up to the highest of ``out_indices``.
        feedforward_channels (int): Hidden width F of the MLP.
        mlp (str): 'gelu' or 'swiglu'.
        patch_size (int): Side of a patch in pixels.
        image_size (tuple[int, int]): Height and width in pixels.
        in_channels (int): Channels of an image. Defaults to 3.
        causal (bool): Whether attention is causal. Defaults to False.
        frozen_layers (int): Layers from below that do not learn. Defaults to 0.
        learns_patch_embed (bool): Whether the patch embedding learns. Defaults to True.
        with_cp (bool): Activation checkpointing: what learns runs forward twice. Defaults to False.
    """

    embed_dims: int
    num_layers: int
    feedforward_channels: int
    mlp: str
    patch_size: int
    image_size: tuple[int, int]
    in_channels: int = 3
    causal: bool = False
    frozen_layers: int = 0
    learns_patch_embed: bool = True
    with_cp: bool = False

    @property
    def num_patches(self) -> int:
        """Patches T, those that are filled up at the right and the bottom included."""
        height, width = self.image_size
        return -(-height // self.patch_size) * -(-width // self.patch_size)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one image; a multiplication and an addition are two.

    Args:
        forward (float): Of a forward pass.
        training (float): Of a forward pass, and of the backward pass through what learns.
    """

    forward: float
    training: float

    def __add__(self, other: 'Flops') -> 'Flops':
        return Flops(self.forward + other.forward, self.training + other.training)


def vit_shape(backbone: Mapping[str, Any], image_size: tuple[int, int], causal: bool = False) -> ViTShape:
    """Shape of the backbone that a config describes.

    Args:
        backbone (Mapping[str, Any]): Arguments of a :class:`~nepa_mm.models.NEPAViT`; what is absent has its default.
        image_size (tuple[int, int]): Height and width in pixels.
        causal (bool): Attention where the config is silent: True under the algorithm ``NEPA``. Defaults to False.

    Returns:
        ViTShape: The shape.

    Raises:
        ValueError: The ``arch`` is unknown.
    """
    defaults = {name: p.default for name, p in inspect.signature(NEPAViT).parameters.items()}
    given = {**defaults, 'causal': causal, **backbone}
    arch = check_arch(given['arch'])
    depth, indices = arch['num_layers'], given['out_indices']
    highest = max(i % depth for i in ([indices] if isinstance(indices, int) else indices))
    return ViTShape(
        embed_dims=arch['embed_dims'],
        num_layers=highest + 1,
        feedforward_channels=arch['feedforward_channels'],
        mlp=given['mlp'],
        patch_size=given['patch_size'],
        image_size=image_size,
        in_channels=given['in_channels'],
        causal=given['causal'],
        frozen_layers=min(max(given['frozen_stages'], 0), highest + 1),
        learns_patch_embed=not given['freeze_patch_embed'] and given['frozen_stages'] < 0,
        with_cp=given['with_cp'],
    )


def vit_flops(shape: ViTShape, skip_masked: bool = False, recompute: bool = False) -> Flops:
    """FLOPs of one image through a NEPAViT: its matrix products; norms, activations and RoPE are not counted.

    Backward, every product of the forward pass has two, for its input and its weight; the patch embedding has one, for
    images have no gradient, and what is frozen has none.

    Args:
        shape (ViTShape): The backbone.
        skip_masked (bool): Of causal attention, count the lower triangle alone: flash attention skips the rest.
            Defaults to False: all T x T, as published figures and torch's ``FlopCounterMode`` count.
        recompute (bool): Count too what is computed a second time: the scores in flash attention's backward pass, and
            with ``with_cp`` the whole forward pass. Defaults to False.

    Returns:
        Flops: Per image.
    """
    tokens, dims = shape.num_patches + 1, shape.embed_dims
    patch_embed = 2 * shape.num_patches * dims * shape.in_channels * shape.patch_size**2
    projections = 2 * tokens * dims * (4 * dims + MLP_PRODUCTS[shape.mlp] * shape.feedforward_channels)
    pairs = tokens * (tokens + 1) / 2 if shape.causal and skip_masked else tokens**2
    product = 2 * pairs * dims  # of q and k, and once more of the weights and v
    forward = projections + 2 * product
    backward = 2 * forward
    if recompute:
        backward += product + (forward if shape.with_cp else 0)
    learning = shape.num_layers - shape.frozen_layers
    total = patch_embed + shape.num_layers * forward
    return Flops(total, total + learning * backward + (patch_embed if shape.learns_patch_embed else 0))
