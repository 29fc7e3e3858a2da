"""Heads. All but ``NEPAHead`` need a host's model zoo: imported by need (see ``nepa_mm.models``)."""

from .nepa_head import NEPAHead

__all__ = ['NEPAHead']
