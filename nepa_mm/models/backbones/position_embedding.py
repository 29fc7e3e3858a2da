"""A learned position embedding, which the paper's plain ViT has in the place of RoPE."""

from collections.abc import Sequence

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ..utils import is_count

INIT_STD = 0.02


class PositionEmbedding(nn.Module):
    """Learned vectors for the patches of a grid, added to the tokens; BOS gets none.

    Args:
        grid (Sequence[int]): Rows and columns that it has vectors for; another grid gets them resampled (bicubic).
        embed_dims (int): Width D.

    Raises:
        ValueError: ``grid`` is no pair of positive integers.
    """

    def __init__(self, grid: Sequence[int], embed_dims: int) -> None:
        super().__init__()
        if not isinstance(grid, Sequence) or len(grid) != 2 or not all(is_count(n) for n in grid):
            raise ValueError(
                f'NEPAViT: pos_embed={grid!r} is no grid of patches; give (rows, columns), such as (16, 16) for '
                'patches of 14 in 224 x 224, or None.'
            )
        self.grid = list(grid)
        self.weight = nn.Parameter(torch.empty(1, grid[0] * grid[1], embed_dims))
        nn.init.trunc_normal_(self.weight, std=INIT_STD)

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """Tokens (B, 1 + T, D) with positions, for T patches in ``grid``."""
        positions = resample_abs_pos_embed(self.weight, list(grid), self.grid, num_prefix_tokens=0)  # (1, T, D)
        return tokens + nn.functional.pad(positions, (0, 0, 1, 0))
