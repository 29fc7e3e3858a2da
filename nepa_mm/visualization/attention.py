"""Attention probabilities of every layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..models.backbones import NEPAViT


@torch.no_grad()
def attention_maps(backbone: NEPAViT, images: Tensor) -> Tensor:
    """Attention probabilities of all layers and heads, in the mode (causal or not) the backbone is in.

    Training never builds these T x T matrices; this does, one layer after the other.

    Args:
        backbone (NEPAViT): The backbone; put it into eval mode for a result without random RoPE rescale.
        images (Tensor): (B, C, H, W), normalised, of whole patches or not.

    Returns:
        Tensor: (num_layers, B, num_heads, 1 + T, 1 + T); row t is what token t attends to, BOS first.
    """
    maps: list[Tensor] = []
    with _recorded_attention(backbone, maps):
        tokens, grid = backbone.embed(images)
        backbone.encode(tokens, grid, (backbone.num_layers - 1,))
    return torch.stack(maps)


@contextmanager
def _recorded_attention(backbone: NEPAViT, maps: list[Tensor]) -> Iterator[None]:
    """Let timm's attention write its probabilities out: its plain path passes them through `attn_drop`."""

    def record(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        maps.append(args[0].detach())

    attentions: list[Any] = [layer.attn for layer in backbone.layers]
    fused = [attention.fused_attn for attention in attentions]
    handles = [attention.attn_drop.register_forward_pre_hook(record) for attention in attentions]
    try:
        for attention in attentions:
            attention.fused_attn = False
        yield
    finally:
        for attention, was_fused, handle in zip(attentions, fused, handles, strict=True):
            attention.fused_attn = was_fused
            handle.remove()
