"""Decode heads that do not wait: mmseg's losses and weights, and its accuracy."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.losses import accuracy
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.utils._python_dispatch import TorchDispatchMode

from nepa_mm.models.heads.async_seg_heads import pixel_accuracy

IGNORED = 255
HEADS = {
    'UPerHead': dict(in_channels=[4, 4], in_index=[0, 1], pool_scales=(1, 2)),
    'FCNHead': dict(in_channels=4, in_index=1, num_convs=1, concat_input=False),
}


def build(kind, **kwargs):
    torch.manual_seed(0)
    config = dict(type=kind, channels=6, num_classes=5, norm_cfg=dict(type='BN'), align_corners=False, dropout_ratio=0)
    return MODELS.build(config | HEADS[kind.removeprefix('Async')] | kwargs)


def samples(ignored=0.3):
    labels = torch.randint(0, 5, (2, 1, 16, 16))
    labels[torch.rand(labels.shape) < ignored] = IGNORED
    return [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]


def test_accuracy_is_that_of_mmseg():
    logits, labels = torch.randn(2, 5, 9, 7), torch.randint(0, 5, (2, 9, 7))
    labels[0, :4] = IGNORED
    expected = accuracy(logits, labels, ignore_index=IGNORED)
    torch.testing.assert_close(pixel_accuracy(logits, labels, IGNORED), expected[0])
    assert 5 < expected < 50  # guessing


def test_accuracy_without_a_labelled_pixel_is_zero():
    assert pixel_accuracy(torch.randn(1, 5, 2, 2), torch.full((1, 2, 2), IGNORED), IGNORED) == 0


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(sampler=dict(type='OHEMPixelSampler', thresh=0.5, min_kept=10)),
        dict(
            loss_decode=[
                dict(type='CrossEntropyLoss', loss_name='loss_ce', loss_weight=2.0),
                dict(type='CrossEntropyLoss', loss_name='loss_ce', avg_non_ignore=True),
                dict(type='DiceLoss', loss_name='loss_dice'),
            ]
        ),
    ],
    ids=['one loss', 'sampler', 'three losses'],
)
@pytest.mark.parametrize('kind', HEADS)
def test_losses_and_weights_are_those_of_mmseg(kind, options):
    theirs, ours = build(kind, **options), build(f'Async{kind}', **options)
    ours.load_state_dict(theirs.state_dict())
    maps, batch = (torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)), samples()
    expected, losses = (head.loss(maps, batch, {}) for head in (theirs, ours))
    assert list(losses) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value.reshape(()), msg=name)


def test_a_loss_does_not_ask_how_many_pixels_count():
    class Sizes(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            index = func.overloadpacket is torch.ops.aten.index
            self.count += func.overloadpacket in (torch.ops.aten.nonzero, torch.ops.aten._local_scalar_dense) or (
                index and any(i is not None and i.dtype is torch.bool for i in args[1])
            )
            return func(*args, **(kwargs or {}))

    maps, batch = (torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)), samples()
    counts = []
    for head in (build('UPerHead'), build('AsyncUPerHead')):
        with Sizes() as sizes:
            head.loss(maps, batch, {})
        counts.append(sizes.count)
    assert counts[0] > 0
    assert counts[1] == 0
