"""Visualizers that make their figure when they draw: nothing before, and what the hosts' draw after."""

import itertools

import numpy as np
import pytest
import torch
from mmengine.registry import VISUALIZERS, DefaultScope
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

import nepa_mm  # noqa: F401  registers what is built

NAMES = itertools.count()
HOSTS = {'mmpretrain': 'UniversalVisualizer', 'mmseg': 'SegLocalVisualizer'}


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    monkeypatch.setattr(Visualizer, '_instance_dict', {})


def build(scope, kind, **kwargs):
    with DefaultScope.overwrite_default_scope(scope):
        return VISUALIZERS.build(dict(type=kind, name=f'lazy-test-{next(NAMES)}', **kwargs))


@pytest.mark.parametrize('scope', HOSTS)
def test_scalars_and_configs_are_written_without_a_figure(scope, tmp_path):
    visualizer = build(
        scope, f'Lazy{HOSTS[scope]}', vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path)
    )
    visualizer.add_scalars(dict(loss=0.5), step=3)
    visualizer.dataset_meta = dict(classes=('a',))
    assert (tmp_path / 'vis_data' / 'scalars.json').read_text() == '{"loss": 0.5, "step": 3}\n'
    assert visualizer._parts is None
    assert Visualizer.get_current_instance() is visualizer  # as the hosts' hooks ask for it
    visualizer.close()
    assert visualizer._parts is None


def test_draws_what_mmseg_draws():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.arange(600).reshape(1, 20, 30) // 200))
    pictures = []
    for kind in ('SegLocalVisualizer', 'LazySegLocalVisualizer'):
        visualizer = build('mmseg', kind)
        visualizer.dataset_meta = dict(classes=tuple('abc'), palette=[[255, 0, 0], [0, 255, 0], [0, 0, 255]])
        visualizer.add_datasample('x', image, sample, draw_gt=False, show=False, with_labels=True)
        pictures.append(visualizer._image)
        visualizer.set_image(image)
        visualizer.draw_texts('cat', np.array([5, 5]))
        pictures.append(visualizer.get_image())
    for theirs, ours in zip(pictures[:2], pictures[2:], strict=True):
        assert np.array_equal(theirs, ours)
    assert not np.array_equal(pictures[0], image)


def test_draws_what_mmpretrain_draws():
    image = np.full((40, 60, 3), 128, np.uint8)
    sample = DataSample().set_pred_label(1).set_pred_score(torch.tensor([0.25, 0.75]))
    pictures = [
        build('mmpretrain', kind).visualize_cls(image, sample, classes=['cat', 'dog'])
        for kind in ('UniversalVisualizer', 'LazyUniversalVisualizer')
    ]
    assert np.array_equal(*pictures)
    assert not np.array_equal(pictures[0], image)


@pytest.mark.parametrize('scope', HOSTS)
def test_an_image_given_at_once_is_there(scope):
    visualizer = build(scope, f'Lazy{HOSTS[scope]}', image=np.zeros((8, 6, 3), np.uint8))
    assert visualizer.get_image().shape == (8, 6, 3)
    assert visualizer.dpi == visualizer.fig_save.get_dpi() > 0
