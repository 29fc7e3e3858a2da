"""Heads. ``NEPAClsHead`` needs mmpretrain's model zoo and is imported by need (see ``nepa_mm.models``)."""

from .nepa_head import NEPAHead

__all__ = ['NEPAHead']
