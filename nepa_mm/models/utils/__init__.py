"""Small types shared by backbones and necks."""

from .feature_maps import FeatureMaps

__all__ = ['FeatureMaps']
