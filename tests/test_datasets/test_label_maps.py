"""Label maps: what mmseg gives, and errors that name the file."""

import warnings

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from nepa_mm.datasets import CheckedDataset, LabelError
from nepa_mm.datasets.label_maps import read_label_map, to_classes
from tests.damaged import encode

VALUES = np.random.default_rng(0).integers(0, 6, (20, 30), dtype=np.uint8)
VALUES[0, :3] = 255, 254, 0


def load(data, tmp_path, **results):
    """What the step of a config named LoadAnnotations makes of a file."""
    path = tmp_path / 'label.png'
    path.write_bytes(data)
    given = dict(seg_map_path=str(path), reduce_zero_label=False, seg_fields=[], img_path='image.jpg')
    return TRANSFORMS.build(dict(type='LoadAnnotations'))(given | results)


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 3, 1: 255, 2: 0}])
def test_same_as_mmseg(tmp_path, reduce_zero_label, label_map):
    from mmseg.datasets.transforms.loading import LoadAnnotations  # theirs, not the one of that name in the registry

    path = tmp_path / 'label.png'
    palette = Image.fromarray(VALUES)
    palette.putpalette(list(range(256)) * 3)
    for image in (Image.fromarray(VALUES), palette, Image.fromarray(VALUES.astype(np.uint16))):
        image.save(path)
        results = dict(seg_map_path=str(path), reduce_zero_label=reduce_zero_label, label_map=label_map)
        theirs = LoadAnnotations()(results | dict(seg_fields=[]))
        ours = TRANSFORMS.build(dict(type='LoadAnnotations'))(results | dict(seg_fields=[]))
        assert np.array_equal(theirs['gt_seg_map'], ours['gt_seg_map'])
        assert theirs['seg_fields'] == ours['seg_fields'] == ['gt_seg_map']
        assert ours['gt_seg_map'].dtype == np.uint8 and ours['gt_seg_map'].flags.writeable


def test_values_by_hand():
    stored = np.uint8([[0, 1, 2, 150, 255]])
    assert to_classes(stored, True).tolist() == [[255, 0, 1, 149, 255]]
    assert to_classes(stored, True, {0: 7, 149: 255}).tolist() == [[255, 7, 1, 255, 255]]
    assert to_classes(stored, False) is stored


def test_another_size_names_both_files(tmp_path):
    data = encode(VALUES, 'PNG')
    assert load(data, tmp_path, ori_shape=(20, 30))['gt_seg_map'].shape == (20, 30)
    with pytest.raises(LabelError) as error:
        load(data, tmp_path, ori_shape=(20, 31))
    assert str(error.value) == (
        f"label map '{tmp_path / 'label.png'}' is 30 x 20, but its image 'image.jpg' is 31 x 20; "
        'tools/misc/verify_dataset.py CONFIG lists all such files'
    )
    with pytest.raises(LabelError, match=r'is 30 x 20, but .* is 20 x 30 \(turned by its EXIF tag\?'):
        load(data, tmp_path, ori_shape=(30, 20))


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'', r'\(0 bytes\) cannot be read'),
        (encode(VALUES, 'PNG')[:100], r'\(100 bytes\) cannot be read'),
        (encode(np.dstack([VALUES] * 3), 'PNG'), r'\(mode RGB\) is a picture of colours, expected the numbers'),
        (encode(VALUES.astype(np.uint16) * 2, 'PNG'), r'\(mode I;16\) has values 0 to 510, expected .* 0 to 255'),
        (encode(VALUES.astype(np.float32), 'TIFF'), r'\(mode F\) has values 0.0 to 255.0, expected whole ones'),
        (encode(VALUES.astype(np.int32) - 1, 'TIFF'), r'\(mode I\) has values -1 to 254'),
    ],
)
def test_what_is_no_label_map(data, reason, tmp_path):
    with pytest.raises(LabelError, match=rf"^label map '.*label\.png' {reason}"):
        load(data, tmp_path)


def test_a_missing_label_map(tmp_path):
    given = dict(seg_map_path=str(tmp_path / 'gone.png'), reduce_zero_label=False, seg_fields=[])
    with pytest.raises(LabelError, match=r"^label map '.*gone\.png' cannot be read: No such file"):
        TRANSFORMS.build(dict(type='LoadAnnotations'))(given)


def test_other_decoders_are_checked_alike(tmp_path):
    step = TRANSFORMS.build(dict(type='LoadAnnotations', imdecode_backend='cv2'))
    path = tmp_path / 'label.png'
    path.write_bytes(encode(VALUES, 'PNG'))
    given = dict(seg_map_path=str(path), reduce_zero_label=False)
    assert np.array_equal(step(given | dict(seg_fields=[]))['gt_seg_map'], VALUES)
    path.write_bytes(encode(VALUES.astype(np.uint16) * 2, 'PNG'))
    with pytest.raises(LabelError, match=r'\(uint16 \(20, 30\)\) has values 0 to 510'):
        step(given | dict(seg_fields=[]))
    path.write_bytes(b'text')
    with pytest.raises(LabelError, match=r'\(4 bytes\): cv2 cannot decode it'):
        step(given | dict(seg_fields=[]))


def test_a_step_and_a_data_set_that_disagree(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # mmseg prefers that it is set at the data set
        step = TRANSFORMS.build(dict(type='LoadAnnotations', reduce_zero_label=True))
    path = tmp_path / 'label.png'
    path.write_bytes(encode(VALUES, 'PNG'))
    assert step(dict(seg_map_path=str(path), reduce_zero_label=True, seg_fields=[]))['gt_seg_map'][0, 1] == 253
    with pytest.raises(ValueError, match='LoadAnnotations: reduce_zero_label=True, but the data set has False'):
        step(dict(seg_map_path=str(path), reduce_zero_label=False, seg_fields=[]))


def test_reading_alone():
    assert np.array_equal(read_label_map(encode(VALUES, 'PNG'), 'a'), VALUES)
    bilevel = encode(Image.fromarray(VALUES > 2), 'PNG')
    assert np.array_equal(read_label_map(bilevel, 'a'), VALUES > 2)


def test_damaged_maps_are_found(tmp_path):
    """Of zeros in the place of the last of a PNG, Pillow makes classes."""
    values = np.random.default_rng(0).integers(0, 6, (120, 200), dtype=np.uint8)
    data = encode(values, 'PNG')
    for kept in (len(data) // 2, len(data) - 200, len(data) - 30):
        with pytest.raises(
            LabelError, match=r"^label map '.*\.png' \(.* bytes\) cannot be read: damaged: the checksum"
        ):
            load(data[:kept] + bytes(len(data) - kept), tmp_path)
    with pytest.raises(LabelError, match='cannot be read: cut short: its end mark is missing'):
        load(data[:-12], tmp_path)


def test_through_a_data_set_and_its_pipeline(tmp_path):
    """What a segmentation run does with a map of another size, and with a class that the model does not have."""
    for i, (size, label) in enumerate([((20, 30), 2), ((20, 31), 0), ((20, 30), 3)]):
        for kind, image in (('images', np.zeros((20, 30, 3), np.uint8)), ('labels', np.full(size, label, np.uint8))):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / kind / f'{i}.png')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='Resize', scale=(60, 40)),
        dict(type='PackSegInputs'),
    ]
    cfg = dict(
        type='FolderSegDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        metainfo=dict(classes=('a', 'b', 'c')),
        pipeline=pipeline,
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = CheckedDataset(DATASETS.build(cfg), num_classes=3)
    assert dataset[0]['data_samples'].gt_sem_seg.data.unique().tolist() == [2]
    with pytest.raises(LabelError, match=r"labels/1\.png' is 31 x 20, but its image '.*images/1\.png' is 30 x 20"):
        dataset[1]
    with pytest.raises(LabelError, match=r"labels/2\.png' holds label 3, but the model has 3 classes, 0 to 2"):
        dataset[2]
