"""Small types and checks shared by backbones and necks."""

from .checks import is_count, is_rate
from .feature_maps import FeatureMaps

__all__ = ['FeatureMaps', 'is_count', 'is_rate']
