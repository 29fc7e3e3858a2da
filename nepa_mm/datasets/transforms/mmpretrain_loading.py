"""Puts our LoadImageFromFile in the place of mmcv's in mmpretrain's registry too, where mmpretrain registers it again.

Imported when that registry is first looked into, after mmpretrain's own transforms.
"""

from mmpretrain.registry import TRANSFORMS

from .load_image import LoadImageFromFile

TRANSFORMS.register_module(module=LoadImageFromFile, force=True)
