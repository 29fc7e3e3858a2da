"""What tools/test.py writes beside its log: per-class tables, confusion matrices, label maps."""

import csv
import json
import re
import runpy
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import nepa_mm
from tests.predictors import make_site, noise, write

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'test.py'
SCENES = ('0', '1', '2')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp('site'))


@pytest.fixture
def run_test(folder, monkeypatch, tmp_path):
    """Call the tool in the site's folder, with its work directory in tmp_path."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv('LOCAL_RANK', raising=False)

    def call(name, *words):
        options = ['--cfg-options', f'experiment_name={name}-{time.time_ns()}']
        words = [f'{name}.py', f'{name}.pth', '--work-dir', tmp_path / 'run', *words, *options]
        monkeypatch.setattr(sys, 'argv', ['test.py', *map(str, words)])
        runpy.run_path(str(TOOL), run_name='__main__')

    return call


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def true_counts(predictions):
    """Confusion matrix of the scenes; 0 is no label, class k is stored as k + 1."""
    matrix = np.zeros((3, 3), int)
    for name, prediction in zip(SCENES, predictions, strict=True):
        truth = read(f'scenes/annotations/{name}.png')
        np.add.at(matrix, (truth[truth > 0].astype(int) - 1, prediction[truth > 0]), 1)
    return matrix


def test_segmentation(run_test, tmp_path):
    files = [tmp_path / f'matrix.{kind}' for kind in ('json', 'csv', 'png')]
    run_test('segment', '--out', tmp_path / 'maps', '--confusion-matrix', *files)
    model = nepa_mm.get_model('segment.py', 'segment.pth', device='cpu')
    predictions = [result.label_map for result in nepa_mm.segment(model, 'scenes/images')]

    # ADE20K's server and the data set's own annotations count from 1, for 0 is no label
    assert sorted(path.name for path in (tmp_path / 'maps').iterdir()) == [f'{name}.png' for name in SCENES]
    for name, prediction in zip(SCENES, predictions, strict=True):
        written = read(tmp_path / f'maps/{name}.png')
        assert written.dtype == np.uint8 and np.array_equal(written, prediction + 1)

    matrix = true_counts(predictions)
    assert json.loads(files[0].read_text()) == dict(classes=['sky', 'road', 'tree'], counts=matrix.tolist())
    shares = np.array([row[1:] for row in csv.reader(files[1].open())][1:], dtype=float)
    np.testing.assert_allclose(shares, matrix / matrix.sum(1, keepdims=True), atol=1e-6)
    assert read(files[2]).ndim == 3

    (table,) = (tmp_path / 'run').glob('*/per_class.json')
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    assert [row['IoU'] for row in json.loads(table.read_text())] == np.round(
        100 * matrix.diagonal() / union, 2
    ).tolist()
    assert table.with_suffix('.csv').read_text().startswith('class,IoU,Acc,Precision,pixels\nsky,')

    # mmseg prints the same
    (log,) = (tmp_path / 'run').glob('*/*.log')
    text = log.read_text()
    for row in json.loads(table.read_text()):
        assert re.search(rf'\| +{row["class"]} +\| +{row["IoU"]}0? +\| +{row["Acc"]}0? +\|', text)
    assert f'per class results: {table.with_suffix(".csv")} and {table}' in text
    assert f'mIoU: {np.round(np.mean(100 * matrix.diagonal() / union), 2):.4f}' in text


def test_test_time_augmentation_has_the_same_outputs(run_test, tmp_path):
    run_test('segment', '--tta', '--out', tmp_path / 'maps', '--confusion-matrix', tmp_path / 'matrix.json')
    written = [read(tmp_path / f'maps/{name}.png') for name in SCENES]
    assert (
        json.loads((tmp_path / 'matrix.json').read_text())['counts'] == true_counts([w - 1 for w in written]).tolist()
    )
    model = nepa_mm.get_model('segment.py', 'segment.pth', device='cpu')
    plain = nepa_mm.segment(model, 'scenes/images')
    same = np.mean(written[0] == plain[0].label_map + 1)
    assert 0.4 < same < 1, 'the views were averaged'


def test_labels_that_start_at_zero_are_written_as_they_are(run_test, tmp_path):
    (tmp_path / 'from_zero').mkdir()
    for name in SCENES:  # 0, no label, becomes 255
        cv2.imwrite(str(tmp_path / f'from_zero/{name}.png'), read(f'scenes/annotations/{name}.png') - 1)
    dataset = 'test_dataloader.dataset'
    settings = [f'{dataset}.reduce_zero_label=False', f'{dataset}.data_prefix.seg_map_path={tmp_path}/from_zero']
    run_test('segment', '--out', tmp_path / 'maps', '--cfg-options', *settings)
    model = nepa_mm.get_model('segment.py', 'segment.pth', device='cpu')
    expected = nepa_mm.segment(model, 'scenes/images/0.png').label_map
    assert np.array_equal(read(tmp_path / 'maps/0.png'), expected)


def test_every_process_makes_the_folder_of_label_maps(run_test, tmp_path, monkeypatch):
    """On a node that does not share the first one's disk there is nobody else to make it."""
    monkeypatch.setattr('nepa_mm.apis.testing.is_main_process', lambda: False)
    run_test('segment', '--out', tmp_path / 'maps')
    assert sorted(path.name for path in (tmp_path / 'maps').iterdir()) == [f'{name}.png' for name in SCENES]


def test_classification(run_test, tmp_path):
    run_test('classify', '--confusion-matrix', tmp_path / 'matrix.json')
    model = nepa_mm.get_model('classify.py', 'classify.pth', device='cpu')
    expected = np.zeros((4, 4), int)
    for i, result in enumerate(nepa_mm.classify(model, 'classes')):
        expected[i // 2, result.label] += 1
    assert json.loads((tmp_path / 'matrix.json').read_text())['counts'] == expected.tolist()
    (table,) = (tmp_path / 'run').glob('*/per_class.json')
    rows = json.loads(table.read_text())
    assert [row['class'] for row in rows] == ['ant', 'bee', 'cat', 'dog']
    assert [row['Acc'] for row in rows] == (100 * expected.diagonal() / 2).tolist()
    assert [row['images'] for row in rows] == [2] * 4


def test_label_maps_of_one_name_do_not_overwrite_each_other(run_test, folder, tmp_path):
    """Named by the stem alone, as mmseg does."""
    rng = np.random.default_rng(0)
    for kind, image in (('images', noise(rng, (30, 44))), ('annotations', np.zeros((30, 44), np.uint8))):
        for city in ('bonn', 'ulm'):
            write(folder / f'cities/{kind}/{city}/1.png', image)
    with pytest.raises(SystemExit, match=r'bonn/1\.png and .*ulm/1\.png would be one file'):
        run_test('segment', '--out', tmp_path / 'maps', '--cfg-options', 'test_dataloader.dataset.data_root=cities')
    run_test('segment', '--cfg-options', 'test_dataloader.dataset.data_root=cities')


def test_a_matrix_of_another_kind_is_refused_at_once(run_test, tmp_path):
    with pytest.raises(SystemExit, match=r"test\.py: --confusion-matrix: .*'m\.xls': the file must end with \.png"):
        run_test('segment', '--confusion-matrix', 'm.xls')
    assert not (tmp_path / 'run').exists()
