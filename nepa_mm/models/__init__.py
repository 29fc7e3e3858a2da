"""Models: backbone, algorithm, heads, loss and neck.

``NEPA``, ``NEPAClsHead`` and three preprocessors inherit from mmpretrain's classes, the segmentation heads and theirs
from mmseg's, and are imported by need: a segmentation run never imports mmpretrain's model zoo, nor a pretraining run
mmseg's.
"""

from typing import TYPE_CHECKING

from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmseg.registry import MODELS as MMSEG_MODELS

from ..registry import import_by_need
from .backbones import NEPAViT
from .heads import NEPAHead
from .losses import NextEmbeddingLoss
from .necks import PatchPyramid
from .utils import FeatureMaps

if TYPE_CHECKING:
    from .heads.async_seg_heads import AsyncFCNHead, AsyncUPerHead
    from .heads.linear_seg_head import LinearSegHead
    from .heads.nepa_cls_head import NEPAClsHead
    from .selfsup import NEPA
    from .utils.async_labels import AsyncClsDataPreprocessor
    from .utils.async_seg import AsyncSegDataPreProcessor
    from .utils.async_selfsup import AsyncSelfSupDataPreprocessor
    from .utils.decode_data_preprocessor import DecodeDataPreprocessor

__getattr__ = import_by_need(
    __name__,
    (
        MMPRETRAIN_MODELS,
        {
            'AsyncClsDataPreprocessor': 'nepa_mm.models.utils.async_labels',
            'AsyncSelfSupDataPreprocessor': 'nepa_mm.models.utils.async_selfsup',
            'DecodeDataPreprocessor': 'nepa_mm.models.utils.decode_data_preprocessor',
            'NEPA': 'nepa_mm.models.selfsup.nepa',
            'NEPAClsHead': 'nepa_mm.models.heads.nepa_cls_head',
        },
    ),
    (
        MMSEG_MODELS,
        {
            'AsyncFCNHead': 'nepa_mm.models.heads.async_seg_heads',
            'AsyncSegDataPreProcessor': 'nepa_mm.models.utils.async_seg',
            'AsyncUPerHead': 'nepa_mm.models.heads.async_seg_heads',
            'LinearSegHead': 'nepa_mm.models.heads.linear_seg_head',
        },
    ),
)

__all__ = [
    'AsyncClsDataPreprocessor',
    'AsyncFCNHead',
    'AsyncSegDataPreProcessor',
    'AsyncSelfSupDataPreprocessor',
    'AsyncUPerHead',
    'DecodeDataPreprocessor',
    'FeatureMaps',
    'LinearSegHead',
    'NEPA',
    'NEPAClsHead',
    'NEPAHead',
    'NEPAViT',
    'NextEmbeddingLoss',
    'PatchPyramid',
]
