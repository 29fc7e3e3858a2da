"""mmpretrain's visualizer, with a figure when it draws."""

from mmengine.registry import VISUALIZERS
from mmpretrain.visualization import UniversalVisualizer

from .lazy_figure import LazyFigure


@VISUALIZERS.register_module()
class LazyUniversalVisualizer(LazyFigure, UniversalVisualizer):
    """``UniversalVisualizer``; see :class:`LazyFigure`."""
