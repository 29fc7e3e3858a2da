"""LinearSegHead on a frozen NEPAViT: what it computes, what it trains, and where its logits lie."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import nepa_mm  # noqa: F401  registers what the configs build
from nepa_mm.models import LinearSegHead

ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def build_segmentor(patch_size: int = 8, num_classes: int = 3):
    config = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, size_divisor=1),
        backbone=dict(type='NEPAViT', arch=ARCH, patch_size=patch_size, out_indices=(1, 3), frozen_stages=4),
        neck=dict(
            type='PatchPyramid', in_channels=32, patch_size=patch_size, strides=(patch_size,) * 2, upsample='none'
        ),
        decode_head=dict(
            type='LinearSegHead', in_channels=[32, 32], num_classes=num_classes, norm_cfg=dict(type='BN', affine=False)
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(config))
    model.init_weights()
    return model


def two_halves(height: int, width: int, edge: int):
    """Dark left of `edge`, bright from there on; class 0 and 1."""
    image = torch.full((3, height, width), 60, dtype=torch.uint8)
    image[..., edge:] = 200
    label = torch.zeros(1, height, width, dtype=torch.long)
    label[..., edge:] = 1
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    sample.set_metainfo(dict(img_shape=(height, width), ori_shape=(height, width)))
    return dict(inputs=[image], data_samples=[sample])


def test_it_is_batch_norm_and_one_convolution():
    head = LinearSegHead([4, 6], num_classes=5, norm_cfg=dict(type='BN', affine=False))
    assert {n: tuple(p.shape) for n, p in head.named_parameters()} == {
        'conv_seg.weight': (5, 10, 1, 1),
        'conv_seg.bias': (5,),
    }
    maps = [torch.randn(2, 4, 3, 3) * 100 + 7, torch.randn(2, 6, 3, 3)]
    logits = head.train()(maps)
    joined = torch.cat(maps, dim=1)
    variance, mean = torch.var_mean(joined, dim=(0, 2, 3), keepdim=True, correction=0)
    standard = (joined - mean) / (variance + head.norm.eps).sqrt()
    weight, bias = head.conv_seg.weight[..., 0, 0], head.conv_seg.bias
    torch.testing.assert_close(logits, torch.einsum('bchw,kc->bkhw', standard, weight) + bias[:, None, None])
    # What it saw stays for the test.
    torch.testing.assert_close(head.norm.running_mean, 0.1 * mean.flatten())


def test_single_map_and_chosen_maps():
    maps = [torch.randn(2, c, 3, 3) for c in (2, 4, 6)]
    assert LinearSegHead(6, num_classes=3, norm_cfg=dict(type='BN')).eval()(maps).shape == (2, 3, 3, 3)
    head = LinearSegHead([2, 6], num_classes=3, in_index=[0, 2], norm_cfg=dict(type='BN')).eval()
    logits = head(maps)
    maps[1] += 1
    assert torch.equal(head(maps), logits)


@pytest.mark.parametrize(('in_channels', 'in_index'), [([4, 4], 0), (4, [0, 1]), ([4, 4], [0, 1, 2]), ([], None)])
def test_unequal_lists_are_refused(in_channels, in_index):
    with pytest.raises(ValueError, match='LinearSegHead.*same length'):
        LinearSegHead(in_channels, num_classes=3, in_index=in_index)


def test_only_the_head_learns():
    model = build_segmentor().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    data = two_halves(64, 64, edge=24)
    history = []
    for _ in range(40):
        batch = model.data_preprocessor(data, training=True)
        loss, _ = model.parse_losses(model(**batch, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.25 < 0.9 < history[0]
    assert all(p.grad is None for p in model.backbone.parameters())
    assert not any(layer.training for layer in model.backbone.layers)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {
        f'decode_head.{n}'
        for n in (
            'conv_seg.weight',
            'conv_seg.bias',
            'norm.running_mean',
            'norm.running_var',
            'norm.num_batches_tracked',
        )
    }
    (result,) = model.eval().test_step(two_halves(64, 64, edge=24))
    assert (result.pred_sem_seg.data == data['data_samples'][0].gt_sem_seg.data).float().mean() > 0.95


def test_logits_of_a_padded_grid_lie_over_their_pixels():
    """96 pixels are 6.9 patches of 14; drawn as if 7 covered 96, an edge at pixel 84 would come out at 82.3."""
    model = build_segmentor(patch_size=14).eval()
    maps = model.backbone(torch.zeros(1, 3, 96, 96))
    assert maps[0].shape[2:] == (7, 7)
    columns = torch.arange(7.0) * 14 + 7  # the x of each patch's centre
    for x in maps:
        x[:] = columns
    (level, _) = model.neck(maps)
    upscaled = nn.functional.interpolate(level, size=(96, 96), mode='bilinear', align_corners=False)
    # The outer half cell of the output grid is mmseg's resize, which repeats the border.
    torch.testing.assert_close(upscaled[0, 0, 0, 7:-7], torch.arange(96.0)[7:-7] + 0.5, atol=1e-3, rtol=0)
