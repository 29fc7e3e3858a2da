"""The yardstick: the same weights through timm's own blocks, as the release's step computes."""

from typing import cast

import torch
from timm.models.eva import EvaBlock
from torch import Tensor

from nepa_mm.models import NEPAViT


def predict_with_timm_blocks(backbone: NEPAViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """What :meth:`~nepa_mm.models.NEPAViT.predict_next` returns, by timm's block and timm's RoPE.

    Args:
        backbone (NEPAViT): Without learned positions, input masking and dropout of the embedding.
        images (Tensor): (B, C, H, W), whole patches.

    Returns:
        tuple[Tensor, Tensor]: Prediction and embeddings, both (B, 1 + T, D).
    """
    embeddings, grid = backbone.embed(images)
    rope = None if backbone.rope is None else backbone.rope.get_embed(list(grid))
    x = embeddings.float() if torch.is_autocast_enabled(embeddings.device.type) else embeddings
    for layer in backbone.layers:
        x = EvaBlock.forward(cast(EvaBlock, layer), x, rope=rope, is_causal=backbone.causal)
    return backbone.norm(x), embeddings
