"""Preprocessors of pretraining and segmentation: what the hosts' give, with channels turned by a kernel."""

import copy

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils._python_dispatch import TorchDispatchMode

from nepa_mm.models import NEPA

PRETRAIN = ('SelfSupDataPreprocessor', 'mmpretrain')
SEGMENT = ('SegDataPreProcessor', 'mmseg')
NORMALIZE = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0])


def build(kind, ours, **kwargs):
    name, scope = kind
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(dict(type=('Async' if ours else f'{scope}.') + name, **kwargs))


def images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def labels():
    return [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 5, (1, 5, 6)))) for _ in range(2)]


class NoIndexing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket is not torch.ops.aten.index
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('order', [dict(bgr_to_rgb=True), dict(rgb_to_bgr=True), dict()], ids=str)
@pytest.mark.parametrize('norm', [NORMALIZE, dict()], ids=['norm', 'raw'])
@pytest.mark.parametrize(
    ('kind', 'inputs', 'samples', 'training'),
    [
        (PRETRAIN, lambda: images(2, 3, 4, 6), list, True),
        (PRETRAIN, lambda: [images(2, 3, 4, 6), images(2, 3, 8, 8)], list, True),  # two views
        (SEGMENT, lambda: [images(3, 5, 6), images(3, 5, 6)], labels, True),
        (SEGMENT, lambda: images(2, 3, 5, 6), labels, True),
        (SEGMENT, lambda: [images(3, 5, 6), images(3, 5, 6)], lambda: None, False),
    ],
    ids=['pretrain', 'views', 'segment', 'stacked', 'test'],
)
def test_gives_what_the_host_gives(kind, inputs, samples, training, norm, order):
    given = dict(inputs=inputs(), data_samples=samples())
    options = norm | order | (dict(size=(8, 8)) if kind is SEGMENT else dict())
    theirs = build(kind, False, **options)(copy.deepcopy(given), training)
    before = copy.deepcopy(given['inputs'])
    with NoIndexing():
        ours = build(kind, True, **options)(given, training)
    assert list(ours) == list(theirs)
    for a, b in zip(ours['inputs'], theirs['inputs'], strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)
    for a, b in zip(ours['data_samples'] or [], theirs['data_samples'] or [], strict=True):
        assert torch.equal(a.gt_sem_seg.data, b.gt_sem_seg.data)
        assert a.metainfo == b.metainfo
    assert all(torch.equal(a, b) for a, b in zip(before, given['inputs'], strict=True))


@pytest.mark.parametrize('channels', [1, 4])
def test_other_numbers_of_channels_keep_their_order(channels):
    given = images(2, channels, 4, 6)
    out = build(PRETRAIN, True, bgr_to_rgb=True)(dict(inputs=given, data_samples=[]))
    assert torch.equal(out['inputs'], given.float())


def test_pretraining_turns_bgr_into_rgb_where_its_config_says_nothing():
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16)
    model = NEPA(dict(type='NEPAViT', arch=arch, patch_size=4))
    assert type(model.data_preprocessor).__name__ == 'AsyncSelfSupDataPreprocessor'
    blue = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    blue[:, 0] = 255
    assert model.data_preprocessor(dict(inputs=blue, data_samples=[]))['inputs'].mean((0, 2, 3)).tolist() == [-1, -1, 1]
