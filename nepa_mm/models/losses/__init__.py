"""Losses."""

from .next_embedding_loss import NextEmbeddingLoss

__all__ = ['NextEmbeddingLoss']
