"""Backbones."""

from .nepa_vit import NEPAViT

__all__ = ['NEPAViT']
