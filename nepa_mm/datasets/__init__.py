"""Data sets that mmpretrain and mmseg lack.

``CamVidDataset`` inherits from mmseg's class and is imported by need: pretraining never imports mmseg's data sets.
"""

from typing import TYPE_CHECKING

from mmseg.registry import DATASETS as MMSEG_DATASETS

from ..registry import import_by_need

if TYPE_CHECKING:
    from .camvid import CamVidDataset

__getattr__ = import_by_need(__name__, {'CamVidDataset': 'nepa_mm.datasets.camvid'}, MMSEG_DATASETS)

__all__ = ['CamVidDataset']
