"""What a trained model looks at, and pictures of what it predicts and how well."""

from .attention import attention_maps

__all__ = ['attention_maps']
