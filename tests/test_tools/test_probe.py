"""tools/analysis/probe.py, as users start it."""

import csv
import importlib.util
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from nepa_mm.evaluation import ProbeResult
from nepa_mm.evaluation.probe_report import ProbeReport
from nepa_mm.models import NEPAViT
from nepa_mm.visualization import probe_plot

ROOT = Path(__file__).resolve().parents[2]
DEPTH, WIDTH = 3, 16

BACKBONE = f"""
custom_imports = dict(imports=['nepa_mm'], allow_failed_imports=False)
default_scope = 'mmpretrain'
backbone = dict(
    type='NEPAViT',
    arch=dict(embed_dims={WIDTH}, num_layers={DEPTH}, num_heads=2, feedforward_channels=32),
    patch_size=8,
    layer_scale_init=0.5,
)
"""
CLASSIFY = (
    BACKBONE
    + """
backbone.update(out_type='avg_featmap', init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'))
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True, num_classes=3),
    backbone=backbone,
    head=dict(type='NEPAClsHead', num_classes=3, in_channels=16, topk=(1,)),
)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        type='RepeatDataset',
        times=1,
        dataset=dict(
            type='CustomDataset',
            data_root='data/train',
            pipeline=[dict(type='LoadImageFromFile'), dict(type='RandomCrop', crop_size=8), dict(type='PackInputs')],
        ),
    ),
)
val_dataloader = dict(
    batch_size=4,
    dataset=dict(
        type='CustomDataset',
        data_root='data/val',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=16), dict(type='PackInputs')],
    ),
)
"""
)
PRETRAIN = (
    BACKBONE
    + """
model = dict(type='NEPA', backbone=backbone)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        type='CustomDataset',
        data_root='data/train',
        with_label=False,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=16), dict(type='PackInputs')],
    ),
)
"""
)


def make_folders(root, counts=dict(train=8, val=4), classes=('cat', 'dog', 'eel')):  # noqa: B006
    generator = np.random.default_rng(0)
    for split, count in counts.items():
        for shade, name in enumerate(classes):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                image = generator.integers(0, 100, (20, 24, 3), dtype=np.uint8) + np.uint8(70 * shade)
                cv2.imwrite(str(root / split / name / f'{i}.png'), image)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder to work in: data/{train,val}, two configs, a checkpoint with raw and averaged weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('gc.collect', int)  # a second for each data set that mmengine builds
    make_folders(tmp_path / 'data')
    (tmp_path / 'classify.py').write_text(CLASSIFY)
    (tmp_path / 'pretrain.py').write_text(PRETRAIN)
    model = MODELS.build(Config.fromfile('pretrain.py').model)
    raw = {k: v.clone() for k, v in model.state_dict().items()}
    average = {k: v + 0.01 for k, v in raw.items()}
    torch.save(dict(state_dict=average, ema_state_dict=dict(raw, steps=torch.tensor(3)), meta={}), 'checkpoint.pth')
    return tmp_path


@pytest.fixture
def probe(monkeypatch, capsys):
    """The tool as a function of its command line; returns what it prints."""
    spec = importlib.util.spec_from_file_location('probe_tool', ROOT / 'tools/analysis/probe.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*words):
        command = ['probe.py', '--num-workers', '0', '--device', 'cpu', *map(str, words)]
        monkeypatch.setattr(sys, 'argv', command)
        tool.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def passes(monkeypatch):
    """How many images each forward pass had, over all passes."""
    seen = []
    embed = NEPAViT.embed
    monkeypatch.setattr(NEPAViT, 'embed', lambda self, images: (seen.append(len(images)), embed(self, images))[1])
    return seen


def load_json(folder):
    return json.loads((folder / 'probe.json').read_text())


def test_probes_a_classification_config(site, probe, passes):
    out = probe('classify.py', 'checkpoint.pth', '--work-dir', 'out', '--k', 3, 5)
    assert sum(passes) == 24 + 12, 'one pass over the images, for four depths and two poolings'
    assert 'tensors from checkpoint.pth (raw weights)' in out
    assert 'with bidirectional attention: 24 training images, 12 validation images' in out
    assert 'always the commonest class: 33.3' in out

    found = load_json(site / 'out')
    assert found['about']['num_classes'] == 3 and found['about']['attention'] == 'bidirectional'
    keys = [(r['layer'], r['pooling']) for r in found['results']]
    assert keys == [(layer, pooling) for layer in ('embed', 0, 1, 2) for pooling in ('avg', 'last')]
    with (site / 'out/probe.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    for row, result in zip(rows, found['results'], strict=True):
        assert float(row['knn3_top1']) == result['knn']['3'][0]
        assert float(row['linear_top1']) == result['linear'][0]
        assert row['knn5_top5'] == '' and result['knn']['5'][1] is None, 'of three classes'
    assert Image.open(site / 'out/probe.png').size == (1488, 576)


def test_numbers_are_those_of_the_backbones_own_outputs(site, probe):
    """The whole chain by other means: images by PIL, outputs by the backbone's forward, votes by scikit-learn."""
    probe('classify.py', 'checkpoint.pth', '--work-dir', 'out', '--knn', '--k', 5, '--layers', '1', '--pool', 'avg')
    backbone = NEPAViT(
        arch=dict(embed_dims=WIDTH, num_layers=DEPTH, num_heads=2, feedforward_channels=32),
        patch_size=8,
        layer_scale_init=0.5,
        out_type='avg_featmap',
        out_indices=1,
    ).eval()
    raw = torch.load('checkpoint.pth', weights_only=True)['ema_state_dict']
    backbone.load_state_dict({k.removeprefix('backbone.'): v for k, v in raw.items() if k.startswith('backbone.')})
    features, labels = {}, {}
    for split in ('train', 'val'):
        files = sorted((site / 'data' / split).rglob('*.png'))
        crops = [np.asarray(Image.open(f))[2:18, 4:20] for f in files]
        images = (torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() - 127.5) / 127.5
        with torch.no_grad():
            features[split] = backbone(images)[0].double().numpy()
        labels[split] = [f.parent.name for f in files]
    sklearn = KNeighborsClassifier(5, metric='cosine', weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = 100 * sklearn.fit(features['train'], labels['train']).score(features['val'], labels['val'])
    (result,) = load_json(site / 'out')['results']
    assert result['knn']['5'][0] == pytest.approx(expected)
    assert result['linear'] is None


def test_kept_features_are_read_again_and_stale_ones_are_not(site, probe, passes, monkeypatch):
    monkeypatch.setattr(probe_plot, 'draw_accuracy_over_depth', lambda *args, **kwargs: None)  # most of the time
    words = ['classify.py', 'checkpoint.pth', '--work-dir', 'out', '--knn', '--k', 3]
    probe(*words, '--layers', '0,1')
    first = load_json(site / 'out')['results']
    assert sum(passes) == 36

    passes.clear()
    assert 'train: 4 of 4 kept' in probe(*words, '--layers', '0,1')
    assert passes == [] and load_json(site / 'out')['results'] == first

    assert 'val: 4 of 6 kept' in probe(*words, '--layers', '0,1,2'), 'a layer more: the others stay'
    assert sum(passes) == 36 and load_json(site / 'out')['results'][:4] == first

    def computes(*more):
        passes.clear()
        probe(*words, '--layers', '0,1', *more)
        return sum(passes)

    assert computes() == 0
    assert computes('--weights', 'ema') == 36
    assert computes('--attention', 'causal') == 36
    assert computes('--amp') == 36
    assert computes('--feature-dtype', 'float16') == 36
    assert computes('--image-size', 8) == 36
    assert computes('--cfg-options', 'model.backbone.rope.base=50.') == 36, 'not in the weights, but in the features'
    assert computes('--no-cache') == 36
    assert computes() == 0, 'and the first ones are still there'

    file = site / 'data/val/cat/0.png'
    cv2.imwrite(str(file), 255 - cv2.imread(str(file)))
    os.utime(file, ns=(1, 1))
    assert computes() == 12, 'of the changed split only'
    file.unlink()
    assert computes() == 11


def test_probes_a_pretraining_config_on_labelled_folders(site, probe):
    out = probe(
        *('pretrain.py', 'checkpoint.pth', '--work-dir', 'out', '--linear'),
        *('--train-data', 'data/train', '--val-data', 'data/val', '--layers', 'embed,-1', '--pool', 'avg'),
    )
    assert 'causal attention: 24 training images, 12 validation images' in out
    found = load_json(site / 'out')
    assert [r['layer'] for r in found['results']] == ['embed', 2]
    assert [r['knn'] for r in found['results']] == [{}, {}]
    assert found['results'][0]['linear'][0] == 100, 'shades are easy'
    assert {r['pooling'] for r in found['results']} == {'avg'}


def test_holds_out_a_fifth_of_a_single_folder(site, probe):
    out = probe('pretrain.py', 'checkpoint.pth', '--work-dir', 'out', '--train-data', 'data/train', '--knn')
    assert 'a fifth of each class of data/train is held out' in out
    assert '18 training images, 6 validation images' in out
    assert 'k-NN with k = [20, 100] left out: there are 18 training images' in out
    assert list(load_json(site / 'out')['results'][0]['knn']) == ['10']


def test_random_weights_on_purpose(site, probe):
    words = ['pretrain.py', '--random-weights', '--train-data', 'data/train', '--knn', '--no-cache']
    out = probe(*words, '--work-dir', 'one')
    assert 'Loaded' not in out
    probe(*words, '--work-dir', 'two')
    assert load_json(site / 'one')['results'] == load_json(site / 'two')['results']
    assert not (site / 'one/features').exists()


@pytest.mark.parametrize(
    ('words', 'error'),
    [
        (['classify.py'], 'give a checkpoint, or --random-weights'),
        (['classify.py', 'checkpoint.pth', '--random-weights'], 'give a checkpoint, or --random-weights'),
        (['classify.py', 'nowhere.pth'], 'nowhere.pth'),
        (['classify.py', 'checkpoint.pth', '--device', 'gpu'], "--device 'gpu' cannot be used here ("),
        (['nowhere.py', 'checkpoint.pth'], "config 'nowhere.py' does not exist"),
        (['pretrain.py', 'checkpoint.pth'], 'has no labelled images; name some: --train-data'),
        (['pretrain.py', 'checkpoint.pth', '--val-data', 'data/val'], '--val-data needs --train-data'),
        (['pretrain.py', 'checkpoint.pth', '--train-data', 'data/none'], "'data/none' does not exist"),
        (['pretrain.py', 'checkpoint.pth', '--train-data', 'data/train/cat'], 'has no folders in it'),
        (
            ['pretrain.py', 'checkpoint.pth', '--train-data', 'data/train', '--val-data', 'other/val'],
            "['cat'] only in the training set",
        ),
        (['pretrain.py', 'checkpoint.pth', '--train-data', 'data/train', '--pool', 'bos'], 'same for every image'),
        (
            ['pretrain.py', 'checkpoint.pth', '--train-data', 'data/train', '--pool', 'max'],
            "pooling ['max'] is unknown",
        ),
        (['pretrain.py', 'checkpoint.pth', '--train-data', 'data/train', '--layers', '3'], 'layer 3 is neither'),
        (['pretrain.py', 'checkpoint.pth', '--train-data', 'data/train', '--layers', 'top'], "layer 'top' is neither"),
        (['classify.py', 'checkpoint.pth', '--k', '3', '0'], '--k [3, 0] is not positive'),
        (['classify.py', 'checkpoint.pth', '--batch-size', '0'], '--batch-size 0 is not positive'),
        (['classify.py', 'checkpoint.pth', '--knn', '--k', '50'], 'no k of [50] is left for 24 training images'),
        (
            ['classify.py', 'checkpoint.pth', '--cfg-options', 'model.backbone.patch_size=4'],
            'does not fit the backbone',
        ),
    ],
)
def test_mistakes_are_told_without_a_traceback(site, probe, words, error):
    make_folders(site / 'other', classes=('dog', 'eel'))
    with pytest.raises(SystemExit) as stopped:
        probe(*words, '--work-dir', 'out')
    assert str(stopped.value).startswith('probe.py: ') and error in str(stopped.value)
    assert not (site / 'out/probe.json').exists()


def test_the_size_of_images_must_be_known(site, probe):
    text = (site / 'pretrain.py').read_text().replace('scale=16', 'scale=(16, 8)')
    (site / 'pretrain.py').write_text(text)
    with pytest.raises(SystemExit, match='does not say how large its crops are; pass --image-size'):
        probe('pretrain.py', 'checkpoint.pth', '--train-data', 'data/train')


def test_a_wrapped_validation_set_has_a_pipeline(site, probe):
    (site / 'wrapped.py').write_text(
        "_base_ = 'classify.py'\n"
        "val_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', "
        'datasets=[{{_base_.val_dataloader.dataset}}]))\n'
    )
    words = ['checkpoint.pth', '--knn', '--k', '3', '--layers', '0', '--no-cache', '--work-dir']
    probe('classify.py', *words, 'plain')
    probe('wrapped.py', *words, 'wrapped')
    assert load_json(site / 'wrapped')['results'] == load_json(site / 'plain')['results']


# ---------------------------------------------------------------- report and picture


def report():
    results = [
        ProbeResult(
            layer, pooling, 10.0 + i, {10: (20.0 + i, 50.0), 100: (90.0, 95.0)}, (30.0 + i, 60.0), 1e-3, held, True
        )
        for layer, i, held in (('embed', 0, 10.0), (0, 9, 70.0), (1, 12, 60.0))
        for pooling in ('avg', 'last')
    ]
    results[-1].converged = False
    return ProbeReport(results, chance=10.0, about=dict(config='a.py'))


def test_table_and_summary():
    table = report().table().splitlines()
    assert table[0].split() == ['linear', 'probe', 'k-NN,', 'k', '=', '10', 'effective', 'rank']
    assert table[1].split() == ['layer', *['avg', 'last'] * 3]
    assert table[2].split() == ['embed', '30.0', '30.0', '20.0', '20.0', '10.0', '10.0']
    assert table[4].split() == ['1', '42.0*', '42.0', '32.0*', '32.0', '22.0', '22.0'], 'the best of each probe, once'
    assert len({len(line) for line in table}) == 1, 'in columns'
    one = ProbeReport([r for r in report().results if r.pooling == 'avg'], chance=10.0).table().splitlines()
    assert one[0].split() == table[0].split()
    assert len({len(line) for line in one}) == 1, 'in columns, narrower than their titles'
    summary = report().summary()
    assert 'always the commonest class: 10.0' in summary
    assert 'linear probe: best 42.0 at layer 1, avg' in summary and 'k-NN, k = 10: best 32.0 at layer 1' in summary
    assert 'chosen on a held-out fifth of the training set: layer 0, avg: 39.0' in summary, 'not the best on val'
    assert 'the solver stopped at its last iteration for 1 (1 last)' in summary


def test_picture_shows_every_line_chance_and_the_best(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda self, *args, **kwargs: (drawn.append(self), save(self, *args))[1])
    probe_plot.draw_accuracy_over_depth(report(), tmp_path / 'probe.png', title='a title')
    linear, knn = drawn[0].axes
    assert [linear.get_title(), knn.get_title()] == ['linear probe', 'k-NN, k = 10']
    assert linear.get_ylabel() == 'top-1 accuracy (%)' and linear.get_xlabel().startswith('layer')
    assert [t.get_text() for t in linear.get_xticklabels()] == ['embed', '0', '1']
    lines = {line.get_label(): list(line.get_ydata()) for line in linear.lines}
    assert lines['mean of patches'] == [30, 39, 42] and lines['last patch'] == [30, 39, 42]
    assert lines['commonest class'] == [10, 10]
    assert [t.get_text() for t in knn.texts] == ['32.0 %']
    assert Image.open(tmp_path / 'probe.png').size[0] > 1000


def test_accuracies_end_at_100_percent_and_the_number_stays_inside(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, 'savefig', lambda self, *args, **kwargs: drawn.append(self))
    results = [replace(result, linear=(100.0, 100.0)) for result in report().results]
    probe_plot.draw_accuracy_over_depth(ProbeReport(results, chance=10.0), tmp_path / 'probe.png')
    linear = drawn[0].axes[0]
    assert linear.get_ylim()[1] == 100 and linear.get_ylim()[0] >= 0
    (number,) = linear.texts
    assert number.get_text() == '100.0 %' and number.xyann[1] < 0, 'below the star'
    assert number.get_ha() == 'left', 'at the first layer, embed, it would stick out'
