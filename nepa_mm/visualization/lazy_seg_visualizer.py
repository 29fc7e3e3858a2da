"""mmseg's visualizer, with a figure when it draws."""

from mmengine.registry import VISUALIZERS
from mmseg.visualization import SegLocalVisualizer

from .lazy_figure import LazyFigure


@VISUALIZERS.register_module()
class LazySegLocalVisualizer(LazyFigure, SegLocalVisualizer):
    """``SegLocalVisualizer``; see :class:`LazyFigure`."""
