"""What a trained model looks at, and pictures of what it predicts and how well.

The visualizers inherit from the hosts' classes and are imported by need (see ``nepa_mm.models``).
"""

from typing import TYPE_CHECKING

from mmpretrain.registry import VISUALIZERS as MMPRETRAIN_VISUALIZERS
from mmseg.registry import VISUALIZERS as MMSEG_VISUALIZERS

from ..registry import import_by_need
from .attention import attention_maps

if TYPE_CHECKING:
    from .lazy_cls_visualizer import LazyUniversalVisualizer
    from .lazy_seg_visualizer import LazySegLocalVisualizer

__getattr__ = import_by_need(
    __name__,
    (MMPRETRAIN_VISUALIZERS, {'LazyUniversalVisualizer': 'nepa_mm.visualization.lazy_cls_visualizer'}),
    (MMSEG_VISUALIZERS, {'LazySegLocalVisualizer': 'nepa_mm.visualization.lazy_seg_visualizer'}),
)

__all__ = ['LazySegLocalVisualizer', 'LazyUniversalVisualizer', 'attention_maps']
