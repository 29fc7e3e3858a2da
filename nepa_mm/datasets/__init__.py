"""Data sets and pipeline steps that mmpretrain and mmseg lack.

The data sets inherit from mmseg's or mmpretrain's classes and are imported by need: pretraining never imports mmseg's
data sets.
"""

from typing import TYPE_CHECKING

from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from mmpretrain.registry import TRANSFORMS as MMPRETRAIN_TRANSFORMS
from mmseg.registry import DATASETS as MMSEG_DATASETS
from mmseg.registry import TRANSFORMS as MMSEG_TRANSFORMS

from ..registry import import_by_need, import_with
from .bad_images import BadImages
from .checked import CheckedDataset, check_labels
from .data_files import UnsafeDataFileError, guard_data_files
from .encoded_batch import EncodedBatch, collate_encoded
from .errors import DataError, LabelError, TooManyBadImagesError, UnreadableImage
from .postscript import forbid_ghostscript
from .reading import read_image
from .transforms import LoadEncodedImage, LoadImageFromBytes, LoadImageFromFile, TimmRandAugment, TimmRandomErasing

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
# In the host's own registry only: a pretraining looks into the root, and need not import mmseg.
import_with(MMPRETRAIN_TRANSFORMS, 'nepa_mm.datasets.transforms.mmpretrain_loading')
import_with(MMPRETRAIN_TRANSFORMS, 'nepa_mm.datasets.transforms.decode_random_resized_crop')
import_with(MMPRETRAIN_TRANSFORMS, 'nepa_mm.datasets.transforms.draw_random_resized_crop')
import_with(MMSEG_TRANSFORMS, 'nepa_mm.datasets.transforms.load_annotations')
import_with(MMSEG_TRANSFORMS, 'nepa_mm.datasets.transforms.decode_seg_crop')
import_with(MMSEG_TRANSFORMS, 'nepa_mm.datasets.transforms.table_photo_metric')

__all__ = [
    'BadImages',
    'CamVidDataset',
    'CheckedDataset',
    'DataError',
    'EncodedBatch',
    'FolderSegDataset',
    'HuggingFaceImageDataset',
    'LabelError',
    'LoadEncodedImage',
    'LoadImageFromBytes',
    'LoadImageFromFile',
    'TimmRandAugment',
    'TimmRandomErasing',
    'TooManyBadImagesError',
    'UnreadableImage',
    'UnsafeDataFileError',
    'check_labels',
    'collate_encoded',
    'forbid_ghostscript',
    'guard_data_files',
    'read_image',
]
