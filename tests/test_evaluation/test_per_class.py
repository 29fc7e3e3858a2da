"""PerClassMetric: its numbers against mmseg's IoUMetric and scikit-learn-like counts by hand, and its files."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from nepa_mm.evaluation import PerClassMetric
from nepa_mm.evaluation.per_class import normalise_rows

CLASSES = ('sky', 'road', 'tree', 'never')


def sample(truth, prediction):
    out = SegDataSample(metainfo=dict(img_path='a.png'))
    out.gt_sem_seg = PixelData(data=torch.as_tensor(truth)[None])
    out.pred_sem_seg = PixelData(data=torch.as_tensor(prediction)[None])
    return out.to_dict()


def evaluate(metric, samples, size=None):
    metric.dataset_meta = dict(classes=CLASSES)
    for item in samples:
        metric.process(None, [item])
    return metric.evaluate(size or len(samples))


@pytest.fixture
def scenes():
    """Three of them: labels 0 to 2 and 255, predictions 0 to 3, right half of the time."""
    rng = np.random.default_rng(0)
    truth = [rng.choice([0, 0, 0, 1, 1, 2, 255], (12, 10)) for _ in range(3)]
    return [sample(t, np.where(rng.random(t.shape) < 0.5, t % 255, rng.integers(0, 4, t.shape))) for t in truth]


def counts(samples):
    matrix = np.zeros((4, 4), int)
    for item in samples:
        pairs = zip(item['gt_sem_seg']['data'].flatten(), item['pred_sem_seg']['data'].flatten(), strict=True)
        for truth, prediction in pairs:
            if truth != 255:
                matrix[truth, prediction] += 1
    return matrix


def test_segmentation_has_mmsegs_numbers(scenes, tmp_path, monkeypatch):
    printed = {}

    def keep(*args):
        figures = IoUMetric.__dict__['total_area_to_metrics'].__func__(*args)
        printed.update({name: value.copy() for name, value in figures.items()})
        return figures

    theirs = IoUMetric()
    monkeypatch.setattr(theirs, 'total_area_to_metrics', keep)
    assert evaluate(theirs, scenes)['mIoU'] > 0
    assert evaluate(PerClassMetric(out_dir=str(tmp_path)), scenes) == {}

    rows = json.loads((tmp_path / 'per_class.json').read_text())
    assert [row['class'] for row in rows] == list(CLASSES)
    for i, row in enumerate(rows[:3]):
        assert row['IoU'] == round(100 * printed['IoU'][i], 2)
        assert row['Acc'] == round(100 * printed['Acc'][i], 2)
    matrix = counts(scenes)
    assert [row['pixels'] for row in rows] == matrix.sum(1).tolist()
    assert [row['Precision'] for row in rows] == [round(100 * matrix[i, i] / matrix[:, i].sum(), 2) for i in range(4)]
    # predicted here and there, never true
    assert rows[3] == {'class': 'never', 'IoU': 0.0, 'Acc': None, 'Precision': 0.0, 'pixels': 0}

    with open(tmp_path / 'per_class.csv') as stream:
        table = list(csv.DictReader(stream))
    assert table[0] == {name: str(value) for name, value in rows[0].items()}
    assert table[3]['Acc'] == ''


def test_the_matrix_in_every_form(scenes, tmp_path):
    files = [str(tmp_path / 'new' / f'm.{kind}') for kind in ('json', 'csv', 'png')]
    evaluate(PerClassMetric(confusion_matrix=files), scenes)
    matrix = counts(scenes)
    assert json.loads((tmp_path / 'new/m.json').read_text()) == dict(classes=list(CLASSES), counts=matrix.tolist())

    with open(files[1]) as stream:
        header, *rows = csv.reader(stream)
    assert header[1:] == [row[0] for row in rows] == list(CLASSES)
    shares = np.array([[float(x) for x in row[1:]] for row in rows[:3]])
    np.testing.assert_allclose(shares, matrix[:3] / matrix[:3].sum(1, keepdims=True), atol=1e-6)
    assert rows[3][1:] == [''] * 4

    picture = cv2.imread(files[2])
    assert picture.shape[0] > 300 and picture.std() > 20


def test_rows_are_normalised():
    shares = normalise_rows(np.array([[1, 3], [0, 0]]))
    assert shares[0].tolist() == [0.25, 0.75] and np.isnan(shares[1]).all()


def test_classification(tmp_path):
    truth, prediction = [0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 0]
    samples = [
        DataSample().set_gt_label(t).set_pred_label(p).set_pred_score(torch.eye(4)[p]).to_dict()
        for t, p in zip(truth, prediction, strict=True)
    ]
    evaluate(PerClassMetric(out_dir=str(tmp_path), confusion_matrix=str(tmp_path / 'm.json')), samples)
    assert json.loads((tmp_path / 'per_class.json').read_text()) == [
        {'class': 'sky', 'Acc': 66.67, 'Precision': 66.67, 'images': 3},
        {'class': 'road', 'Acc': 100.0, 'Precision': 50.0, 'images': 1},
        {'class': 'tree', 'Acc': 50.0, 'Precision': 100.0, 'images': 2},
        {'class': 'never', 'Acc': None, 'Precision': None, 'images': 0},
    ]
    counts = json.loads((tmp_path / 'm.json').read_text())['counts']
    assert counts == [[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def classified(truth, prediction, outputs=4):
    out = DataSample(metainfo=dict(img_path='a.png')).set_gt_label(truth).set_pred_label(prediction)
    return out.set_pred_score(torch.ones(outputs)).to_dict()


def test_a_head_with_more_outputs_than_the_data_set_has_classes(tmp_path, logged):
    """Such as ImageNet's, on a part of ImageNet: what it takes for another class is wrong, and no other cell's."""
    pairs = [(0, 0), (0, 4), (0, 900), (1, 1), (3, 999), (3, 3)]
    files = [str(tmp_path / f'm.{kind}') for kind in ('json', 'csv', 'png')]
    metric = PerClassMetric(out_dir=str(tmp_path), confusion_matrix=files)
    evaluate(metric, [classified(*pair, 1000) for pair in pairs])
    rows = json.loads((tmp_path / 'per_class.json').read_text())
    assert [(row['Acc'], row['Precision'], row['images']) for row in rows] == [
        (33.33, 100.0, 3),
        (100.0, 100.0, 1),
        (None, None, 0),
        (50.0, 100.0, 2),
    ]
    assert json.loads((tmp_path / 'm.json').read_text())['counts'] == [
        [1, 0, 0, 0, 2],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1],
    ]
    assert (tmp_path / 'm.csv').read_text().splitlines()[0] == 'truth \\ prediction,sky,road,tree,never,other'
    assert cv2.imread(files[2]).std() > 20
    assert '3 images were taken for none of the 4 classes, which counts as wrong' in ' '.join(logged)


def test_nothing_but_ignored_pixels(tmp_path):
    evaluate(PerClassMetric(out_dir=str(tmp_path)), [sample([[255, 255]], [[0, 3]])])
    assert {row['IoU'] for row in json.loads((tmp_path / 'per_class.json').read_text())} == {None}


def test_several_labels_per_image_are_tested_without_a_table(tmp_path, logged):
    """Multi-label classification has metrics of its own; the test goes on."""
    images = [classified([0, 1], [0]), classified([0], [0]), classified([2], [0, 2]), classified([], [])]
    assert evaluate(PerClassMetric(out_dir=str(tmp_path)), images) == {}
    assert 'No per-class table: images have several labels.' in ' '.join(logged)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r'a\.png has several labels; a confusion matrix needs the truth'):
        evaluate(PerClassMetric(confusion_matrix='m.png'), images)


def test_segmentation_without_class_names(tmp_path, logged):
    metric = PerClassMetric(out_dir=str(tmp_path))
    metric.process(None, [sample([[0]], [[0]])])
    assert metric.evaluate(1) == {}
    assert 'No per-class table: images have no class names.' in ' '.join(logged)


def test_one_entry_per_sample(scenes, tmp_path):
    """Else mmengine, which deals the entries of several processes out in turn, would drop those of other samples."""
    unlabelled = {key: value for key, value in scenes[0].items() if key != 'gt_sem_seg'}
    metric = PerClassMetric(out_dir=str(tmp_path))
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process(None, [unlabelled, *scenes])
    assert len(metric.results) == 4
    metric.evaluate(4)
    rows = json.loads((tmp_path / 'per_class.json').read_text())
    assert [row['pixels'] for row in rows] == counts(scenes).sum(1).tolist()


def test_the_samples_that_pad_a_distributed_run_do_not_count(scenes, tmp_path):
    """As in every metric of mmengine, what is beyond the data set's size is dropped."""
    evaluate(PerClassMetric(confusion_matrix=str(tmp_path / 'm.json')), [*scenes, scenes[0]], size=3)
    assert json.loads((tmp_path / 'm.json').read_text())['counts'] == counts(scenes).tolist()


def test_labels_of_no_class_are_told(tmp_path, logged):
    """IoUMetric leaves them out and says nothing."""
    metric = PerClassMetric(out_dir=str(tmp_path))
    evaluate(metric, [sample([[0, 4], [9, 255]], [[0, 0], [0, 0]])])
    assert '2 pixels have a label that is none of the 4 classes' in ' '.join(logged)
    assert json.loads((tmp_path / 'per_class.json').read_text())[0]['pixels'] == 1


def test_images_without_labels(tmp_path, logged):
    item = sample([[0]], [[0]])
    del item['gt_sem_seg']
    evaluate(PerClassMetric(out_dir=str(tmp_path)), [item])
    assert 'No per-class table: images have no label.' in ' '.join(logged)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r'a\.png has no label; a confusion matrix needs the truth'):
        evaluate(PerClassMetric(confusion_matrix='m.png'), [item])


def test_another_kind_of_file_is_refused():
    with pytest.raises(ValueError, match=r"confusion matrix 'm\.xls': the file must end with \.png, \.csv, \.json"):
        PerClassMetric(confusion_matrix='m.xls')
