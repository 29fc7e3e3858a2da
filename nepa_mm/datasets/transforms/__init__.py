"""Pipeline steps that mmcv and mmpretrain lack: decoding of images in memory, the release's exact augmentation.

See docs/augmentation.md for what differs in the latter and by how much.
"""

from .load_image import LoadImageFromBytes
from .timm_rand_augment import TimmRandAugment
from .timm_random_erasing import TimmRandomErasing

__all__ = ['LoadImageFromBytes', 'TimmRandAugment', 'TimmRandomErasing']
