"""PatchPyramid: ViT maps of any patch size to a feature pyramid that lies over the image."""

import math
from collections.abc import Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..utils import FeatureMaps, is_count

UPSAMPLES = ('deconv', 'none')


@MODELS.register_module()
class PatchPyramid(BaseModule):
    """Turn patch-grid maps into the 4/8/16/32 pyramid that UPerNet reads, aligned with the image to the pixel.

    What mmseg's ``Feature2Pyramid`` does for patch 16, for any patch size and any image size. Two steps a level:

    1. Learned transposed convolutions split each patch into 2 x 2 until its cells are about as fine as the level (patch
       14: 3.5 px for stride 4, 7 px for stride 8), so that a token can draw inside its patch. Cells still tile the
       patch grid.
    2. The cells are resampled *by coordinates* onto the level's own grid. For stride s and an image of H pixels that
       grid is ceil(H / s) cells that tile [0, H) exactly, each of H / ceil(H / s) pixels. This is the geometry that
       every later ``resize(..., align_corners=False)`` of mmseg's heads assumes, so a logit ends up over its pixel,
       whatever was padded.

    ``Feature2Pyramid`` on a padded 37 x 37 grid draws as if those covered 512 px and halves 37 to 18 by dropping a row;
    that is a drift of 1 to 1.6 % of the image.

    Resampling is bilinear with linear extrapolation over the outer half patch (clamping there would shift border
    features by up to half a patch), and averages several points per cell where the level is coarser than the patches.

    Args:
        in_channels (int): Channels of every map, kept in the output.
        patch_size (int): Patch size of the backbone, in pixels.
        strides (Sequence[int]): Stride of each level, in pixels. Defaults to (4, 8, 16, 32).
        upsample (str): 'deconv', or 'none' to resample alone, without parameters. Defaults to 'deconv'.
        norm_cfg (dict): Norm between two transposed convolutions. Defaults to SyncBN, which becomes BN outside of
            distributed training.
        init_cfg (dict, optional): As in mmengine.

    Raises:
        ValueError: A size or stride is not positive, or ``upsample`` is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        patch_size: int,
        strides: Sequence[int] = (4, 8, 16, 32),
        upsample: str = 'deconv',
        norm_cfg: dict = dict(type='SyncBN', requires_grad=True),  # noqa: B006 (never changed)
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        sizes = (in_channels, patch_size, *(strides if isinstance(strides, Sequence) else (None,)))
        if len(sizes) < 3 or not all(is_count(size) for size in sizes):
            raise ValueError(
                f'PatchPyramid: in_channels={in_channels!r}, patch_size={patch_size!r} and the sequence strides='
                f'{strides!r} must be positive integers.'
            )
        if upsample not in UPSAMPLES:
            raise ValueError(f'PatchPyramid: upsample={upsample!r} is unknown; choose one of {list(UPSAMPLES)}.')
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.strides = tuple(strides)
        doublings = [max(0, round(math.log2(patch_size / s))) if upsample == 'deconv' else 0 for s in self.strides]
        self.cells_per_patch = [2**n for n in doublings]
        self.upsamples = nn.ModuleList(_deconvs(in_channels, n, norm_cfg) for n in doublings)

    def forward(self, maps: FeatureMaps) -> tuple[Tensor, ...]:
        """Pyramid of a batch.

        Args:
            maps (FeatureMaps): One map per level, or one map for all; each (B, C, H_grid, W_grid), with the image size.

        Returns:
            tuple[Tensor, ...]: Per level (B, C, ceil(H / stride), ceil(W / stride)) for an image of H x W.

        Raises:
            TypeError: ``maps`` does not carry the image size.
            ValueError: Number, channels or grid of the maps do not fit.
        """
        if not isinstance(maps, FeatureMaps):
            raise TypeError(
                f'PatchPyramid: got {type(maps).__name__} without an image size; expected FeatureMaps, as NEPAViT has '
                "with out_type='featmap'. For another backbone: FeatureMaps(maps, image_size=(H, W))."
            )
        if len(maps) not in (1, len(self.strides)):
            raise ValueError(
                f'PatchPyramid: got {len(maps)} maps for {len(self.strides)} levels; give one per level or one for all '
                '(out_indices of the backbone).'
            )
        grid = tuple(math.ceil(side / self.patch_size) for side in maps.image_size)
        for x in maps:
            if x.shape[1] != self.in_channels or tuple(x.shape[2:]) != grid:
                raise ValueError(
                    f'PatchPyramid: got a map {tuple(x.shape)} for an image of {maps.image_size}; with in_channels='
                    f'{self.in_channels} and patch_size={self.patch_size} it should be (B, {self.in_channels}, '
                    f'{grid[0]}, {grid[1]}). Set both as in the backbone.'
                )
        levels = []
        for i, stride in enumerate(self.strides):
            x = self.upsamples[i](maps[i] if len(maps) > 1 else maps[0])
            levels.append(resample_cells(x, self.patch_size / self.cells_per_patch[i], maps.image_size, stride))
        return tuple(levels)


def resample_cells(x: Tensor, cell: float, image_size: tuple[int, int], stride: int) -> Tensor:
    """Resample square cells of ``cell`` pixels onto the grid of ``stride`` that tiles the image.

    Args:
        x (Tensor): (B, C, h, w); cell (i, j) is centred on pixel coordinates ((i + .5) * cell, (j + .5) * cell). The
            cells may reach beyond the image to the right and bottom.
        cell (float): Side of a cell in pixels.
        image_size (tuple[int, int]): Height and width of the image in pixels.
        stride (int): Wanted stride in pixels.

    Returns:
        Tensor: (B, C, ceil(H / stride), ceil(W / stride)).
    """
    rows, cols = (
        _resample_matrix(n, cell, side, math.ceil(side / stride), x)
        for n, side in zip(x.shape[2:], image_size, strict=True)
    )
    if rows is not None:
        x = rows @ x
    if cols is not None:
        x = x @ cols.T
    return x


def _resample_matrix(n_in: int, cell: float, side: int, n_out: int, like: Tensor) -> Tensor | None:
    """Weights (n_out, n_in) along one axis; None where both grids are the same."""
    if n_in == 1:
        return torch.ones(n_out, 1, device=like.device, dtype=like.dtype)
    pitch = side / n_out
    if n_in == n_out and math.isclose(pitch, cell):
        return None
    points = max(1, math.ceil(pitch / cell - 1e-6))
    at = torch.arange(n_out * points, device=like.device, dtype=torch.float32)
    at = (at + 0.5) * (pitch / points) / cell - 0.5  # in cells, from the centre of the first
    left = at.floor().clamp(0, n_in - 2)
    # Outside of the outermost centres the weight leaves [0, 1]: linear extrapolation.
    right_weight = at - left
    index = left.long()
    weights = torch.zeros(len(at), n_in, device=like.device)
    weights.scatter_(1, index[:, None], (1 - right_weight)[:, None])
    weights.scatter_(1, index[:, None] + 1, right_weight[:, None])
    return weights.unflatten(0, (n_out, points)).mean(dim=1).to(like.dtype)


def _deconvs(channels: int, doublings: int, norm_cfg: dict) -> nn.Sequential:
    """Transposed convolutions that split each cell into 2 x 2, ``doublings`` times, with norm and GELU in between."""
    modules: list[nn.Module] = []
    for i in range(doublings):
        if i:
            modules += [build_norm_layer(norm_cfg, channels)[1], nn.GELU()]
        modules.append(nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2))
    return nn.Sequential(*modules)
