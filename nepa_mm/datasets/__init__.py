"""Data sets that mmpretrain and mmseg lack.

They inherit from mmseg's class and are imported by need: pretraining never imports mmseg's data sets.
"""

from typing import TYPE_CHECKING

from mmseg.registry import DATASETS as MMSEG_DATASETS

from ..registry import import_by_need

if TYPE_CHECKING:
    from .camvid import CamVidDataset
    from .folder_seg import FolderSegDataset

__getattr__ = import_by_need(
    __name__,
    {'CamVidDataset': 'nepa_mm.datasets.camvid', 'FolderSegDataset': 'nepa_mm.datasets.folder_seg'},
    MMSEG_DATASETS,
)

__all__ = ['CamVidDataset', 'FolderSegDataset']
