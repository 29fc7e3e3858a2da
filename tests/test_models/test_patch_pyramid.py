"""PatchPyramid: everything it draws lies over the image, whatever the patch size."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.registry import MODELS

from nepa_mm.models import FeatureMaps, PatchPyramid
from nepa_mm.models.necks.patch_pyramid import resample_cells

SIZES = [((224, 224), 14), ((512, 512), 14), ((518, 518), 14), ((333, 500), 16), ((160, 160), 8), ((30, 47), 4)]


def coordinates(image_size, cell):
    """What an identity backbone emits: each cell's centre in pixels, (1, 2, h, w), (y, x)."""
    rows, cols = (torch.arange(math.ceil(side / cell)) * cell + cell / 2 for side in image_size)
    return torch.stack(torch.meshgrid(rows, cols, indexing='ij')).unsqueeze(0).float()


def level_centres(image_size, stride):
    """Centres of a level's cells, which tile the image."""
    rows, cols = ((torch.arange(n) + 0.5) * side / n for side, n in ((s, math.ceil(s / stride)) for s in image_size))
    return torch.stack(torch.meshgrid(rows, cols, indexing='ij')).unsqueeze(0)


@pytest.mark.parametrize(('image_size', 'patch'), SIZES)
def test_an_identity_backbone_comes_out_in_place(image_size, patch):
    neck = PatchPyramid(2, patch, upsample='none')
    levels = neck(FeatureMaps([coordinates(image_size, patch)], image_size))
    for level, stride in zip(levels, neck.strides, strict=True):
        expected = level_centres(image_size, stride)
        assert level.shape == expected.shape
        assert (level - expected).abs().max() < 0.01  # pixels; the house rule is 0.5


@pytest.mark.parametrize(('image_size', 'patch'), SIZES[:4])
def test_logits_lie_over_their_pixels(image_size, patch):
    """Through mmseg's own last step, the resize of stride-4 logits to the image."""
    level = PatchPyramid(2, patch, upsample='none')(FeatureMaps([coordinates(image_size, patch)], image_size))[0]
    full = F.interpolate(level, size=image_size, mode='bilinear', align_corners=False)
    pixels = level_centres(image_size, 1)
    assert (full - pixels).abs()[..., 2:-2, 2:-2].max() < 0.5  # F.interpolate clamps in the outer half cell


@pytest.mark.parametrize(('image_size', 'patch'), SIZES[:4])
def test_learned_upsampling_keeps_the_place(image_size, patch):
    """Transposed convolutions told to write their own cells' coordinates; a channel of ones carries the offsets."""
    # Norm and GELU between the convolutions would bend what is written; they act in place and cannot move it.
    neck = PatchPyramid(3, patch, norm_cfg=dict(type='BN')).eval()
    assert neck.cells_per_patch[0] == 4, 'stride 4 gets two doublings at patch 14 and 16'
    for upsample in neck.upsamples:
        cell = float(patch)
        for i, module in enumerate(upsample):
            if isinstance(module, torch.nn.ConvTranspose2d):
                torch.nn.init.zeros_(module.weight)
                torch.nn.init.zeros_(module.bias)
                for c in range(3):
                    module.weight.data[c, c] = 1
                for k, sign in ((0, -1), (1, 1)):
                    module.weight.data[2, 0, k, :] = sign * cell / 4
                    module.weight.data[2, 1, :, k] = sign * cell / 4
                cell /= 2
            else:
                upsample[i] = torch.nn.Identity()
    grid = coordinates(image_size, patch)
    levels = neck(FeatureMaps([torch.cat([grid, torch.ones_like(grid[:, :1])], dim=1)], image_size))
    for level, stride in zip(levels, neck.strides, strict=True):
        assert (level[:, :2] - level_centres(image_size, stride)).abs().max() < 0.01


def test_where_mmseg_drifts():
    """The drift this neck exists for: a padded 37 x 37 grid taken as if it covered 512 pixels."""
    naive = F.interpolate(coordinates((512, 512), 14), size=(128, 128), mode='bilinear', align_corners=False)
    drift = (naive - level_centres((512, 512), 4)).abs()[..., 2:-2, 2:-2].max()
    assert 5 < drift < 8  # pixels


def test_equal_grids_pass_untouched_and_coarse_levels_average():
    x = torch.randn(1, 3, 4, 4)
    assert resample_cells(x, 16, (64, 64), 16) is x
    coarse = resample_cells(x, 16, (64, 64), 32)
    torch.testing.assert_close(coarse, F.avg_pool2d(x, 2))


def test_a_single_patch_is_spread():
    x = torch.randn(1, 2, 1, 1)
    for level in PatchPyramid(2, 14, upsample='none')(FeatureMaps([x], (14, 14))):
        torch.testing.assert_close(level, x.expand_as(level))


def test_bf16():
    x = torch.randn(1, 2, 3, 3)
    exact = resample_cells(x, 14, (40, 40), 4)
    torch.testing.assert_close(resample_cells(x.bfloat16(), 14, (40, 40), 4).float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ('maps', 'error', 'message'),
    [
        ((torch.zeros(1, 2, 3, 3),), TypeError, 'got tuple without an image size'),
        (FeatureMaps([torch.zeros(1, 2, 3, 3)] * 3, (42, 42)), ValueError, 'got 3 maps for 4 levels'),
        (FeatureMaps([torch.zeros(1, 2, 3, 3)], (48, 48)), ValueError, r'should be \(B, 2, 4, 4\)'),
        (FeatureMaps([torch.zeros(1, 5, 3, 3)], (42, 42)), ValueError, 'in_channels=2'),
    ],
)
def test_wrong_maps(maps, error, message):
    with pytest.raises(error, match=message):
        PatchPyramid(2, 14, upsample='none')(maps)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="upsample='bicubic' is unknown"):
        PatchPyramid(2, 14, upsample='bicubic')
    for wrong in (
        dict(strides=()),
        dict(strides=4),
        dict(strides=(4.5, 9)),
        dict(patch_size=14.5),
        dict(in_channels=0),
    ):
        with pytest.raises(ValueError, match='must be positive integers'):
            PatchPyramid(**(dict(in_channels=2, patch_size=14) | wrong))


@pytest.mark.parametrize('upright', [True, False])
def test_a_tiny_model_draws_a_one_pixel_edge_where_the_label_has_it(upright):
    """512 / 14, UPerNet: edges all over the width (or height), each overfitted to the pixel."""
    norm_cfg = dict(type='BN')
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=dict(
                type='NEPAViT',
                arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
                patch_size=14,
                layer_scale_init=0.1,
                rope=dict(rescale=None),
                out_indices=(0, 0, 1, 1),
            ),
            neck=dict(type='PatchPyramid', in_channels=32, patch_size=14, norm_cfg=norm_cfg),
            decode_head=dict(
                type='UPerHead',
                in_channels=[32] * 4,
                in_index=[0, 1, 2, 3],
                pool_scales=(1, 2),
                channels=16,
                dropout_ratio=0,
                num_classes=2,
                norm_cfg=norm_cfg,
                align_corners=False,
                loss_decode=dict(type='CrossEntropyLoss'),
            ),
            train_cfg=dict(),
            test_cfg=ConfigDict(mode='whole'),
        )
    )
    model.init_weights()
    edges = torch.tensor([61, 203, 350, 499])
    label = (torch.arange(512)[None, :] >= edges[:, None]).long()[:, None, :].expand(-1, 56, -1)  # (4, 56, 512)
    if not upright:
        label = label.transpose(1, 2)  # (4, 512, 56)
    size = tuple(label.shape[1:])
    images = (label * 2.0 - 1.0)[:, None].expand(-1, 3, -1, -1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(120):
        optimizer.param_groups[0]['lr'] = 4e-3 * (1 - step / 120)
        logits = F.interpolate(model.train()(images), size=size, mode='bilinear', align_corners=False)
        loss = F.cross_entropy(logits, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        metas = [dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0] * 4)] * 4
        predicted = model.eval().inference(images, metas).argmax(1)
    off = (predicted != label).sum(dim=(1, 2)) / 56  # pixels off the edge, averaged along it
    assert off.max() <= 1, off
