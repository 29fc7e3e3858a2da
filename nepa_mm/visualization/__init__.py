"""What a trained model looks at."""

from .attention import attention_maps

__all__ = ['attention_maps']
