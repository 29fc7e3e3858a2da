"""Data sets and pipeline steps that mmpretrain and mmseg lack.

The data sets inherit from mmseg's or mmpretrain's classes and are imported by need: pretraining never imports mmseg's
data sets.
"""

from typing import TYPE_CHECKING

from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from mmseg.registry import DATASETS as MMSEG_DATASETS

from ..registry import import_by_need
from .transforms import LoadImageFromBytes, TimmRandAugment, TimmRandomErasing

if TYPE_CHECKING:
    from .camvid import CamVidDataset
    from .folder_seg import FolderSegDataset
    from .hugging_face import HuggingFaceImageDataset

__getattr__ = import_by_need(
    __name__,
    (
        MMSEG_DATASETS,
        {'CamVidDataset': 'nepa_mm.datasets.camvid', 'FolderSegDataset': 'nepa_mm.datasets.folder_seg'},
    ),
    (MMPRETRAIN_DATASETS, {'HuggingFaceImageDataset': 'nepa_mm.datasets.hugging_face'}),
)

__all__ = [
    'CamVidDataset',
    'FolderSegDataset',
    'HuggingFaceImageDataset',
    'LoadImageFromBytes',
    'TimmRandAugment',
    'TimmRandomErasing',
]
