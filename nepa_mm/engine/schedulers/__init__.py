"""Parameter schedulers."""

from .layer_wise_cosine_lr import LayerWiseCosineLR

__all__ = ['LayerWiseCosineLR']
