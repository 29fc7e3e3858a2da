"""Necks."""

from .patch_pyramid import PatchPyramid

__all__ = ['PatchPyramid']
