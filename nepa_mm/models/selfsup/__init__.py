"""Self-supervised algorithms; importing them imports mmpretrain's model zoo (see ``nepa_mm.models``)."""

from .nepa import NEPA

__all__ = ['NEPA']
