"""AsyncClsDataPreprocessor: what mmpretrain's preprocessor gives, with labels that travel together."""

import copy

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

MIX = dict(augments=dict(type='TimmMixup', mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5))


def build(kind, **kwargs):
    return MODELS.build(dict(type=kind, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True, num_classes=5, **kwargs))


def batch(labels=True):
    samples = [DataSample() for _ in range(4)]
    if labels:
        for i, sample in enumerate(samples):
            sample.set_gt_label(i % 5)
    return dict(inputs=torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8), data_samples=samples)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('options', [dict(), dict(to_onehot=True), dict(batch_augments=MIX)], ids=str)
def test_gives_what_mmpretrain_gives(options, training):
    given, results = batch(), []
    for kind in ('ClsDataPreprocessor', 'AsyncClsDataPreprocessor'):
        torch.manual_seed(0)
        np.random.seed(0)
        results.append(build(kind, **options)(copy.deepcopy(given), training))
    theirs, ours = results
    assert torch.equal(ours['inputs'], theirs['inputs'])
    for mine, other in zip(ours['data_samples'], theirs['data_samples'], strict=True):
        assert torch.equal(mine.gt_label, other.gt_label)
        assert ('gt_score' in mine) == ('gt_score' in other)
        if 'gt_score' in mine:
            torch.testing.assert_close(mine.gt_score, other.gt_score)


@pytest.mark.parametrize('labels', [True, False])
def test_all_labels_are_on_the_device_before_mmpretrain_looks(labels):
    """The meta device stands for one: what mmpretrain copies is there already."""
    preprocessor = build('AsyncClsDataPreprocessor').to('meta')
    out = preprocessor(batch(labels), training=True)
    assert out['inputs'].device.type == 'meta'
    for sample in out['data_samples']:
        assert ('gt_label' in sample) == labels
        if labels:
            assert (sample.gt_label.device.type, tuple(sample.gt_label.shape)) == ('meta', (1,))


def test_images_without_samples_pass():
    assert build('AsyncClsDataPreprocessor')(dict(inputs=batch()['inputs']))['data_samples'] is None
