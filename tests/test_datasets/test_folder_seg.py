"""FolderSegDataset: finds the kind of image by itself, and says what is wrong with a folder."""

import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

META = dict(classes=('a', 'b'), palette=[[0, 0, 0], [9, 9, 9]])


def build(root, **kwargs):
    config = dict(
        type='FolderSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        metainfo=META,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')],
    )
    return DATASETS.build(config | kwargs)


def write(root, suffix, name='x'):
    for folder in ('images', 'masks'):
        (root / folder).mkdir(exist_ok=True)
    Image.new('RGB', (4, 3)).save(root / 'images' / f'{name}{suffix}')
    Image.fromarray(np.array([[0, 1, 2, 255]] * 3, np.uint8)).save(root / 'masks' / f'{name}.png')


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.jpeg', '.JPG', '.webp'])
def test_finds_the_suffix(tmp_path, suffix):
    write(tmp_path, suffix)
    dataset = build(tmp_path)
    assert len(dataset) == 1 and dataset.img_suffix == suffix
    assert dataset[0]['gt_seg_map'][0].tolist() == [0, 1, 2, 255]


def test_reduce_zero_label_is_the_data_sets(tmp_path):
    write(tmp_path, '.png')
    assert build(tmp_path, reduce_zero_label=True)[0]['gt_seg_map'][0].tolist() == [255, 0, 1, 255]


def test_errors(tmp_path):
    hint = 'set data_root and data_prefix.img_path in the config'
    with pytest.raises(FileNotFoundError, match=f'does not exist; {hint}'):
        build(tmp_path)
    (tmp_path / 'images').mkdir()
    with pytest.raises(FileNotFoundError, match=f'no images .*; {hint}'):
        build(tmp_path)
    write(tmp_path, '.png')
    with pytest.raises(FileNotFoundError, match='no .jpg image'):
        build(tmp_path, img_suffix='.jpg')
    write(tmp_path, '.jpg', 'y')
    with pytest.raises(ValueError, match="holds .jpg and .png images; choose one with img_suffix='.jpg'"):
        build(tmp_path)
    assert len(build(tmp_path, img_suffix='.jpg')) == 1
