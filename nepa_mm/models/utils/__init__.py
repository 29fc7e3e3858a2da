"""Small types and checks shared by backbones and necks, and the batch augmentation that classifiers train with."""

from .checks import is_count, is_rate
from .feature_maps import FeatureMaps
from .timm_mixup import TimmMixup

__all__ = ['FeatureMaps', 'TimmMixup', 'is_count', 'is_rate']
