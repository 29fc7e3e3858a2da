"""CheckedDataset: bad images replaced and noted once, wrong labels named."""

import copy
import json
import os
import pickle
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader

from nepa_mm.datasets import (
    BadImages,
    CheckedDataset,
    LabelError,
    TooManyBadImagesError,
    UnreadableImage,
    check_labels,
)
from nepa_mm.datasets.bad_images import parse
from nepa_mm.datasets.checked import count_images
from nepa_mm.engine.checked_data import CheckedDataRuns


class Numbers(torch.utils.data.Dataset):
    """Its sample is its index; some are unreadable."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, count=10, bad=(2, 3, 9)):
        self.count, self.bad = count, bad

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.bad:
            raise UnreadableImage(f'{index}.jpg', 'empty, 0 bytes')
        return index


def listed(file) -> list:
    return [json.loads(line) for line in file.read_text().split('\n') if line]


def test_the_next_readable_image_takes_its_place(tmp_path):
    dataset = CheckedDataset(Numbers(), BadImages(tmp_path / 'a/bad.jsonl', max_share=0.3))
    assert [dataset[i] for i in range(10)] == [0, 1, 4, 4, 4, 5, 6, 7, 8, 0]
    assert [dataset[i] for i in range(10)] == [0, 1, 4, 4, 4, 5, 6, 7, 8, 0], 'the same in every epoch'
    assert listed(tmp_path / 'a/bad.jsonl') == [[f'{i}.jpg', 'empty, 0 bytes'] for i in (2, 3, 9)]


def test_without_a_list_it_is_an_error():
    with pytest.raises(UnreadableImage, match="image '2.jpg' cannot be read: empty, 0 bytes"):
        CheckedDataset(Numbers())[2]


def test_what_else_the_data_set_offers():
    dataset = CheckedDataset(Numbers())
    assert (len(dataset), dataset.metainfo, dataset.count) == (10, dict(classes=('a', 'b')), 10)
    assert not hasattr(dataset, 'get_data_info') and not hasattr(dataset, 'pipeline')
    assert len(pickle.loads(pickle.dumps(dataset))) == len(copy.deepcopy(dataset)) == 10


def test_more_than_the_share_stop_with_the_list(tmp_path):
    dataset = CheckedDataset(Numbers(), BadImages(tmp_path / 'bad.jsonl', max_share=0.2))
    assert dataset[2] == 4
    with pytest.raises(TooManyBadImagesError) as error:
        dataset[9]
    assert str(error.value) == (
        '3 of 10 training images cannot be read, more than default_hooks.bad_data.max_bad_share=0.2 allows; mend or '
        f'remove them, or allow more. The list is in {tmp_path / "bad.jsonl"}:\n'
        '  2.jpg: empty, 0 bytes\n  3.jpg: empty, 0 bytes\n  9.jpg: empty, 0 bytes'
    )
    many = CheckedDataset(Numbers(100, range(50)), BadImages(tmp_path / 'many.jsonl', max_share=0.2))
    with pytest.raises(TooManyBadImagesError, match=r'^21 of 100 (.|\n)*\n  9.jpg: empty, 0 bytes\n  and 11 more$'):
        many[0]


def test_all_are_bad(tmp_path):
    dataset = CheckedDataset(Numbers(3, (0, 1, 2)), BadImages(tmp_path / 'bad.jsonl', max_share=1))
    with pytest.raises(TooManyBadImagesError, match='none of the 3 images of the training set can be read'):
        dataset[1]


def test_workers_write_one_list(tmp_path):
    bad = BadImages(tmp_path / 'bad.jsonl', max_share=0.5)
    dataset = CheckedDataset(Numbers(60, range(0, 60, 4)), bad)
    context = get_context('fork')
    for _ in range(2):
        values = torch.cat(list(DataLoader(dataset, 3, num_workers=2, multiprocessing_context=context))).tolist()
        assert values == [i + (i % 4 == 0) for i in range(60)]
    assert bad.known == {}, 'the workers are other processes'
    assert sorted(bad.read()) == sorted(f'{i}.jpg' for i in range(0, 60, 4))


def test_a_list_goes_on_after_a_kill(tmp_path):
    file = tmp_path / 'bad.jsonl'
    BadImages(file, 1, total=10).add(UnreadableImage('a.jpg', 'empty'))
    with open(file, 'a') as stream:
        stream.write('\n["cut by a full di')
    again = BadImages(file, 1, total=10)
    again.add(UnreadableImage('b.jpg', 'of "two"\nlines'))
    again.add(UnreadableImage('a.jpg', 'empty'))
    assert again.known == {'a.jpg': 'empty', 'b.jpg': 'of "two"\nlines'}
    assert parse(file.read_bytes()) == again.known and file.read_bytes().count(b'a.jpg') == 1


def test_a_list_that_grows_is_read_on(tmp_path):
    one, other = (BadImages(tmp_path / 'bad.jsonl', 1, total=10) for _ in range(2))
    for name in 'abc':
        one.add(UnreadableImage(name, 'x'))
        assert list(other.read())[-1] == name
    assert copy.deepcopy(one) is one


def test_a_name_that_is_no_text(tmp_path):
    name = os.fsdecode('caf\xe9\u2028'.encode() + b'\xe9\n.jpg')
    bad = BadImages(tmp_path / 'bad.jsonl', 1, total=10)
    bad.add(UnreadableImage(name, 'x'))
    assert parse((tmp_path / 'bad.jsonl').read_bytes()) == {name: 'x'}


def test_a_full_disk_is_survived(tmp_path, monkeypatch, logged):
    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'write', full)
    dataset = CheckedDataset(Numbers(), BadImages(tmp_path / 'bad.jsonl', max_share=0.3))
    assert dataset[2] == 4
    assert "image '2.jpg' cannot be read: empty, 0 bytes; not noted in" in logged[0]
    assert 'No space left on device' in logged[0]
    assert sorted(dataset.bad_images.known) == ['2.jpg', '3.jpg']


def test_images_of_wrappers_are_counted_once():
    class Listed(Numbers):
        def full_init(self):
            pass

    parts = ConcatDataset.__new__(ConcatDataset)
    parts.datasets = [Listed(3), Listed(4)]
    repeated = RepeatDataset.__new__(RepeatDataset)
    repeated.dataset, repeated.times = parts, 5
    assert count_images(repeated) == 7
    assert count_images(CheckedDataset(Numbers(6))) == 6


def seg_sample(label) -> dict:
    sample = SegDataSample(metainfo=dict(img_path='a.jpg', seg_map_path='a.png'))
    sample.gt_sem_seg = PixelData(data=torch.tensor(np.array(label, np.int64))[None])
    return dict(inputs=torch.zeros(3, 2, 2), data_samples=sample)


def test_label_maps_out_of_range():
    for good in ([[0, 1], [2, 255]], [[255, 255], [255, 255]]):
        check_labels(seg_sample(good), 3)
    with pytest.raises(LabelError) as error:
        check_labels(seg_sample([[0, 7], [255, 3]]), 3)
    assert str(error.value) == (
        "label map 'a.png' holds label 3, 7, but the model has 3 classes, 0 to 2; "
        'tools/misc/verify_dataset.py CONFIG lists all such files'
    )
    with pytest.raises(LabelError, match='holds label 255, but'):
        check_labels(seg_sample([[0, 1], [2, 255]]), 3, ignore_index=254)


def test_a_run_with_a_binary_head_takes_both_labels():
    """One channel and a sigmoid: mmseg's loss takes 0 and 1."""
    head = dict(num_classes=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    for kind, count in (('decode_head', 2), ('head', 1)):
        run = SimpleNamespace(cfg=Config(dict(model={kind: head})))
        cfg = CheckedDataRuns._checked(run, dict(dataset=Numbers()))
        assert cfg['dataset']['num_classes'] == count
    check_labels(seg_sample([[0, 1], [1, 255]]), 2)
    with pytest.raises(LabelError, match='holds label 2, but the model has 2 classes, 0 to 1'):
        check_labels(seg_sample([[0, 1], [2, 255]]), 2)


def test_classes_out_of_range():
    for good in (0, 2, [0, 2]):
        check_labels(dict(data_samples=DataSample(metainfo=dict(img_path='a.jpg')).set_gt_label(good)), 3)
    for wrong in (3, -1, [1, 5]):
        with pytest.raises(LabelError, match=r"image 'a.jpg' has label (3|-1|5), but the model has 3 classes, 0 to 2"):
            check_labels(dict(data_samples=DataSample(metainfo=dict(img_path='a.jpg')).set_gt_label(wrong)), 3)


def test_what_has_no_labels_passes():
    for sample in (dict(inputs=1), dict(data_samples=DataSample()), dict(data_samples=[DataSample()] * 2), 3):
        check_labels(sample, 3)


def test_a_label_is_looked_at_on_the_way():
    class Wrong(Numbers):
        def __getitem__(self, index):
            return seg_sample([[index, 0], [0, 0]])

    dataset = CheckedDataset(Wrong(), num_classes=2)
    assert dataset[1]['data_samples'].gt_sem_seg.data.max() == 1
    with pytest.raises(LabelError, match=r"'a.png' holds label 2, but the model has 2 classes"):
        dataset[2]
