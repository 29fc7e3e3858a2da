"""timm's RoPE of DINOv3, without the device being waited for at every forward pass."""

import math
from typing import Any, cast

import torch
from timm.layers import RotaryEmbeddingDinoV3
from timm.layers.pos_embed_sincos import make_coords_dinov3
from torch import Tensor

# A run has one grid, or a few; testing on whole images of any size has as many as there are sizes.
_MOST_GRIDS = 16


class NEPARope(RotaryEmbeddingDinoV3):
    """``RotaryEmbeddingDinoV3``, whose grid of coordinates stays where it is needed; arguments and results are timm's.

    timm's makes the grid anew on the CPU at every forward pass and copies it, for which the host waits until the device
    has done all that came before. Here the grid is copied once. What changes it in training is drawn on the CPU, in
    timm's order and with its numbers, and goes to the device with the kernels that apply it, as numbers do. While
    compiling, where the graph holds all of that, and under ``torch.func`` it is timm's own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._grids: dict[tuple, tuple[Tensor, Tensor]] = {}

    def _create_embed(self, feat_shape: list[int], no_aug: bool = False) -> Tensor:
        """Sines and cosines (H W, 2 dim) of a grid (H, W), changed at random in train mode unless ``no_aug``."""
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return super()._create_embed(feat_shape, no_aug)
        axes = self._grid(*feat_shape)
        if self.training and not no_aug:
            axes = self._change(*axes)
        return torch.cat(self._get_pos_embed_from_coords(torch.stack(axes, dim=-1)), dim=-1)

    def _grid(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Row and column coordinate of each position, (H W,) both, where the periods are."""
        # The type, since fake tensors of a model that is planned are no use to a real one, nor the reverse.
        periods = cast(Tensor, self.periods)
        key = (height, width, periods.device, type(periods))
        if key not in self._grids:
            grid = make_coords_dinov3(
                height,
                width,
                normalize_coords=self.normalize_coords,
                grid_indexing=self.grid_indexing,
                grid_offset=self.grid_offset,
                device=torch.device('cpu'),  # a device's own divisions round otherwise
            )
            rows, columns = grid.to(periods.device).unbind(dim=-1)
            if type(rows) is not type(periods):
                return rows, columns
            while len(self._grids) >= _MOST_GRIDS:
                self._grids.pop(next(iter(self._grids)))
            self._grids[key] = rows, columns
        return self._grids[key]

    def _change(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Shift, jitter and rescale the coordinates."""
        if self.shift_coords is not None:
            down, right = _draw(2, self.shift_coords)
            rows, columns = rows + down, columns + right
        if self.jitter_coords is not None:
            tall, wide = _draw(2, math.log(self.jitter_coords), exp=True)
            rows, columns = rows * tall, columns * wide
        if self.rescale_coords is not None:
            (scale,) = _draw(1, math.log(self.rescale_coords), exp=True)
            rows, columns = rows * scale, columns * scale
        return rows, columns


def _draw(count: int, limit: float, exp: bool = False) -> tuple[Tensor, ...]:
    """Numbers in [-limit, limit], or their exponentials, as 0-dim tensors of the CPU, which any device takes."""
    numbers = torch.empty(count, device='cpu', dtype=torch.float32).uniform_(-limit, limit)
    return (numbers.exp() if exp else numbers).unbind()
