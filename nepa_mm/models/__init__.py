"""Models: backbone, algorithm, heads, loss and neck.

``NEPA`` and ``NEPAClsHead`` inherit from mmpretrain's classes, ``LinearSegHead`` from mmseg's, and are imported by
need: a segmentation run never imports mmpretrain's model zoo, nor a pretraining run mmseg's.
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
    from .heads.linear_seg_head import LinearSegHead
    from .heads.nepa_cls_head import NEPAClsHead
    from .selfsup import NEPA

__getattr__ = import_by_need(
    __name__,
    (
        MMPRETRAIN_MODELS,
        {'NEPA': 'nepa_mm.models.selfsup.nepa', 'NEPAClsHead': 'nepa_mm.models.heads.nepa_cls_head'},
    ),
    (MMSEG_MODELS, {'LinearSegHead': 'nepa_mm.models.heads.linear_seg_head'}),
)

__all__ = [
    'FeatureMaps',
    'LinearSegHead',
    'NEPA',
    'NEPAClsHead',
    'NEPAHead',
    'NEPAViT',
    'NextEmbeddingLoss',
    'PatchPyramid',
]
