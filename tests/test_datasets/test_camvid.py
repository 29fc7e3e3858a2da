"""CamVidDataset: classes, labels, both kinds of images, registration by need."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

LABELS = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]


def _write(root, suffix, split='train', frames=2):
    """Frames whose label is the row number, the last row void."""
    for folder in ('images', 'annotations'):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    label = np.repeat(np.array([*range(11), 255], np.uint8)[:, None], 16, axis=1)
    for frame in range(frames):
        Image.new('RGB', (16, 12), (frame, 0, 0)).save(root / 'images' / split / f'{frame}{suffix}')
        Image.fromarray(label).save(root / 'annotations' / split / f'{frame}.png')
    return root


def _build(root, split='train', **kwargs):
    from nepa_mm.datasets import CamVidDataset

    prefix = dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')
    return CamVidDataset(data_root=str(root), data_prefix=prefix, **kwargs)


def test_classes_and_palette():
    from nepa_mm.datasets import CamVidDataset

    classes, palette = (CamVidDataset.METAINFO[key] for key in ('classes', 'palette'))
    assert classes == (
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign symbol', 'fence', 'car',
        'pedestrian', 'bicyclist',
    )  # fmt: skip
    assert len(palette) == len({tuple(color) for color in palette}) == 11
    assert palette[0] == [128, 128, 128] and palette[8] == [64, 0, 128]


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_reads_images_and_labels(suffix, tmp_path):
    dataset = _build(_write(tmp_path, suffix), pipeline=LABELS)
    assert len(dataset) == 2
    assert [dataset.get_data_info(i)['img_path'] for i in range(2)] == [
        str(tmp_path / 'images' / 'train' / f'{i}{suffix}') for i in range(2)
    ]
    sample = dataset[1]
    assert sample['img'].shape == (12, 16, 3)
    # Labels come out as stored: void stays 255, which mmseg's losses and metrics ignore.
    rows = sample['gt_seg_map'][:, 0].tolist()
    assert rows == [*range(11), 255]
    assert dataset.ignore_index == 255 and dataset.reduce_zero_label is False


def test_subset_of_classes(tmp_path):
    """Mmseg's way of training fewer classes works: the others become 255."""
    dataset = _build(_write(tmp_path, '.png'), pipeline=LABELS, metainfo=dict(classes=('car', 'road')))
    rows = dataset[0]['gt_seg_map'][:, 0].tolist()
    assert rows == [255, 255, 255, 1, 255, 255, 255, 255, 0, 255, 255, 255]
    assert dataset.metainfo['palette'] == [[64, 0, 128], [128, 64, 128]]


def test_clear_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'does not exist; prepare it with tools/'):
        _build(tmp_path / 'none')
    (tmp_path / 'images' / 'train').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='no images .*prepare it with tools'):
        _build(tmp_path)
    _write(tmp_path, '.png')
    with pytest.raises(FileNotFoundError, match='no .jpg image'):
        _build(tmp_path, img_suffix='.jpg')
    _write(tmp_path, '.jpg')
    with pytest.raises(ValueError, match=r"choose one with img_suffix='.jpg'"):
        _build(tmp_path)
    assert len(_build(tmp_path, img_suffix='.jpg')) == 2


def test_unknown_name():
    import nepa_mm.datasets

    with pytest.raises(AttributeError, match='KittiDataset'):
        _ = nepa_mm.datasets.KittiDataset


def test_registered_by_need(tmp_path):
    """`import nepa_mm` leaves mmseg's data sets alone; a config that builds data finds ours."""
    _write(tmp_path, '.png')
    code = f"""
import sys
import nepa_mm, nepa_mm.datasets
assert 'mmseg.datasets' not in sys.modules
from mmseg.registry import DATASETS
prefix = dict(img_path='images/train', seg_map_path='annotations/train')
config = dict(type='CamVidDataset', data_root={str(tmp_path)!r}, data_prefix=prefix)
assert len(DATASETS.build(config)) == 2
from mmengine.registry import DATASETS as ROOT
assert ROOT.get('CamVidDataset').__module__ == 'nepa_mm.datasets.camvid'
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
