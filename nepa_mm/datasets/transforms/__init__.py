"""Pipeline steps that mmcv and mmpretrain lack: strict loading, the release's exact augmentation.

See docs/robustness.md for the former, docs/augmentation.md for what differs in the latter and by how much.
"""

from .load_encoded_image import LoadEncodedImage
from .load_image import LoadImageFromBytes, LoadImageFromFile
from .timm_rand_augment import TimmRandAugment
from .timm_random_erasing import TimmRandomErasing

__all__ = ['LoadEncodedImage', 'LoadImageFromBytes', 'LoadImageFromFile', 'TimmRandAugment', 'TimmRandomErasing']
