"""The probe by epochs and the probe on kept features see the same images and reach the same accuracy."""

import argparse

import pytest
import torch

from nepa_mm.benchmark import probing
from nepa_mm.evaluation import hash_samples


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    probing.add_arguments(parser)
    return parser.parse_args(['--threads', '1', '--num-layers', '2', '--images', '240', '--classes', '4', *given])


def test_both_reach_the_same_accuracy(monkeypatch):
    """To 5 points, of 360 images that neither has learned from, where one standard error is 2.6.

    With far more images than channels: where there are few, the epochs without weight decay fit them too closely.
    """
    narrow = dict(embed_dims=48, num_layers=2, num_heads=2, feedforward_channels=96)
    monkeypatch.setitem(probing.ARCHS, 'tiny', narrow)
    monkeypatch.setattr(probing, 'NOISE', 20.0)
    given = ('--images', '360', '--img-size', '24', '--epochs', '40', '--batch-size', '24', '--rounds', '2')
    report = probing.run(arguments(*given))
    trained, kept = (report[f'accuracy of {name}'].median for name in ('epochs', 'kept features'))
    assert trained > 40 and kept > 40, 'a guess is right for 25 %'
    assert abs(trained - kept) <= 5
    assert report['accuracy gained'].median == pytest.approx(kept - trained)
    assert len(report['one epoch'].values) == 40
    assert report['all epochs'].median == pytest.approx(sum(report['one epoch'].values))
    total, once = report['all epochs'].median, report['features once, and fit'].values
    assert report['once and fit / all epochs'].values == tuple(t / total for t in once) and len(once) == 2
    assert report['fit on kept features'].median < max(once)
    assert report.settings['images'] == 360


def test_features_are_computed_once(tmp_path, monkeypatch):
    args = arguments('--img-size', '16')
    _, model = probing.build(args)
    train, val = (probing.MadeImages(40, 4, 16, seed) for seed in (0, 1))
    calls = []
    extract = probing.extract_features
    monkeypatch.setattr(probing, 'extract_features', lambda *a: calls.append(a) or extract(*a))
    first = probing.probe_kept(model, train, val, 16, tmp_path)
    assert len(calls) == 2
    assert probing.probe_kept(model, train, val, 16, tmp_path) == first and len(calls) == 2
    with torch.no_grad():
        model.backbone.norm.weight.mul_(1.5)
    probing.probe_kept(model, train, val, 16, tmp_path)
    assert len(calls) == 4, 'other weights'
    probing.probe_kept(model, probing.MadeImages(40, 4, 16, 7), val, 16, tmp_path)
    assert len(calls) == 5, 'other images to learn from'


def test_the_recipe_is_the_leafs():
    cfg, model = probing.build(arguments('--epochs', '18'))
    assert cfg.optim_wrapper.optimizer.lr == 1e-3 * 1024 / 256 and cfg.optim_wrapper.optimizer.weight_decay == 0
    (schedule,) = cfg.param_scheduler
    assert (schedule.warmup, schedule.end) == (1, 18)  # of 5 in 90
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learning == {'head.fc.weight', 'head.fc.bias'}
    assert len(model.backbone.layers) == 2 and model.head.fc.out_features == 4


def test_training_by_epochs_leaves_the_backbone_alone():
    cfg, model = probing.build(arguments('--epochs', '1'))
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    head = model.head.fc.weight.detach().clone()
    images = probing.MadeImages(32, 4, 16, 0)
    seconds, accuracy = probing.train_by_epochs(cfg, model, images, images, 8)
    assert len(seconds) == 1 and 0 <= accuracy <= 100
    assert all(torch.equal(v, before[k]) for k, v in model.backbone.state_dict().items())
    assert not torch.equal(model.head.fc.weight, head)


def test_made_images_differ_by_class_and_seed():
    images = probing.MadeImages(8, 4, 16, 0)
    assert images.images.shape == (8, 3, 16, 16) and images.images.dtype == torch.uint8
    assert images.labels.tolist() == [0, 1, 2, 3] * 2
    assert int(images[5]['data_samples'].gt_label) == 1 and torch.equal(images[5]['inputs'], images.images[5])
    assert torch.equal(probing.MadeImages(8, 4, 16, 0).images, images.images)
    assert hash_samples(probing.MadeImages(8, 4, 16, 0)) == hash_samples(images)
    assert hash_samples(probing.MadeImages(8, 4, 16, 1)) != hash_samples(images)
