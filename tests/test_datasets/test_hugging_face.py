"""HuggingFaceImageDataset: both forms on disk, workers, labels, and what it says about a folder that does not fit."""

import pickle
import shutil
import sys

import datasets
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from PIL import Image

from nepa_mm.datasets import HuggingFaceImageDataset, LoadImageFromBytes, UnreadableImage
from nepa_mm.datasets.hugging_face_rows import ROW_GROUPS
from tests.layouts import make_hugging_face

COUNT = 7
CLASSES = ('cat', 'dog', 'owl')


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope='module', params=['saved', 'parquet'])
def root(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_hugging_face(folder, request.param == 'parquet', COUNT, group=2, classes=CLASSES)
    return str(folder)


def build(root, **kwargs):
    config = dict(type='HuggingFaceImageDataset', data_root=root, pipeline=[dict(type='LoadImageFromBytes')])
    return DATASETS.build(config | kwargs)


def test_images_and_labels(root):
    dataset = build(root)
    assert isinstance(dataset, HuggingFaceImageDataset) and len(dataset) == COUNT
    assert dataset.CLASSES == CLASSES
    assert dataset.get_gt_labels().tolist() == [0, 1, 2, 0, 1, 2, 0]
    for i in (3, 0, 6, 3):
        sample = dataset[i]
        np.testing.assert_array_equal(sample['img'], pixels(i))
        assert sample['gt_label'] == i % 3 and sample['ori_shape'] == (48, 64)
        assert 'img_bytes' not in sample and sample['img_path'].endswith(f'[{i}]')
    for name in ('val', 'validation'):
        np.testing.assert_array_equal(build(root, split=name)[2]['img'], pixels(102))
    assert build(root, indices=[5, 1])[1]['gt_label'] == 1
    assert build(root, metainfo=dict(classes=('x', 'y', 'z'))).CLASSES == ('x', 'y', 'z')
    assert len(build(root, lazy_init=True).rows) == COUNT


def test_without_labels(root):
    sample = build(root, with_label=False)[4]
    assert 'gt_label' not in sample
    np.testing.assert_array_equal(sample['img'], pixels(4))


def test_workers_and_pickling(root):
    dataset = build(root)
    dataset[0]  # opened before it is copied
    size = len(pickle.dumps(dataset))
    assert size < 3000 + 200 * COUNT  # no image goes along: those are 9 kB each
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))[5]['img'], pixels(5))
    assert [s['gt_label'] for s in dataset.get_subset([2, 4])] == [2, 1]
    loader = Runner.build_dataloader(
        dict(
            dataset=dataset,
            batch_size=2,
            num_workers=2,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='pseudo_collate'),
        ),
        seed=0,
    )
    seen = {}
    for batch in loader:
        seen |= dict(zip(batch['img_path'], batch['img'], strict=True))
    assert len(seen) == COUNT
    for path, image in seen.items():
        np.testing.assert_array_equal(image, pixels(int(path[:-1].rpartition('[')[2])))


def test_saved_after_shuffling(tmp_path):
    """A data set saved with an order of its own keeps it."""
    make_hugging_face(tmp_path / 'a', count=COUNT)
    datasets.load_from_disk(str(tmp_path / 'a'))['train'].select([4, 2]).save_to_disk(str(tmp_path / 'b'))
    dataset = build(str(tmp_path / 'b'), split='')
    assert len(dataset) == 2
    np.testing.assert_array_equal(dataset[0]['img'], pixels(4))


def test_parquet_reads_row_groups(tmp_path, monkeypatch):
    """In order, each row group is read once; only so many are kept."""
    make_hugging_face(tmp_path, True, COUNT, group=2)
    rows = build(str(tmp_path)).rows
    assert rows.starts.tolist() == [0, 2, 4, 6] and len(rows) == COUNT
    from pyarrow import parquet

    read = []
    whole = parquet.ParquetFile.read_row_group
    monkeypatch.setattr(parquet.ParquetFile, 'read_row_group', lambda s, i, **k: read.append(i) or whole(s, i, **k))
    for row in range(COUNT):
        rows.image(row)
    assert read == [0, 1, 2, 3] and len(rows._cache) == ROW_GROUPS
    rows.image(4)
    rows.image(0)
    assert read == [0, 1, 2, 3, 0]


def test_several_parquet_files(tmp_path):
    """Splits by name of file or folder; rows in the order of the names."""
    make_hugging_face(tmp_path, True, COUNT)
    source = tmp_path / 'data' / 'train-00000-of-00001.parquet'
    (tmp_path / 'deep' / 'train').mkdir(parents=True)
    shutil.copy(source, tmp_path / 'deep' / 'train' / '0001.parquet')
    shutil.copy(source, tmp_path / 'data' / 'trainer.parquet')  # not of this split
    dataset = build(str(tmp_path))
    assert len(dataset) == 2 * COUNT
    np.testing.assert_array_equal(dataset[COUNT + 1]['img'], pixels(1))
    assert len(build(str(tmp_path), split='')) == 4 * COUNT


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist; set data_root'):
        build(str(tmp_path / 'none'))
    with pytest.raises(FileNotFoundError, match=r'holds neither a data set saved with save_to_disk .* nor \*.parquet'):
        build(str(tmp_path))
    for parquet in (False, True):
        root = tmp_path / str(parquet)
        make_hugging_face(root, parquet)
        with pytest.raises(FileNotFoundError, match="no (parquet file of )?split 'test'"):
            build(str(root), split='test')
        with pytest.raises(ValueError, match=r"no column 'img'; it has image, label.*image_key="):
            build(str(root), image_key='img')
        with pytest.raises(ValueError, match=r"no column 'class'; it has image, label.*label_key="):
            build(str(root), label_key='class')
    unlabelled = datasets.Dataset.from_dict(dict(image=[dict(bytes=b'x', path=None)], label=[-1]))
    unlabelled.save_to_disk(str(tmp_path / 'test'))
    with pytest.raises(ValueError, match=r'holds -1, expected class indices from 0; .*with_label=False'):
        build(str(tmp_path / 'test'), split='')
    bad = build(str(tmp_path / 'test'), split='', with_label=False)
    with pytest.raises(UnreadableImage, match=r"image '.*test\[0\]' cannot be read: 1 bytes of no known image format"):
        bad[0]
    datasets.Dataset.from_dict(dict(image=['text'])).save_to_disk(str(tmp_path / 'text'))
    with pytest.raises(UnreadableImage, match=r"image '.*text\[0\]' cannot be read: column 'image' holds no image"):
        build(str(tmp_path / 'text'), split='', with_label=False)[0]
    unlabelled.select([]).to_parquet(tmp_path / 'empty.parquet')
    with pytest.raises(ValueError, match='is empty'):
        build(str(tmp_path), split='empty', with_label=False)
    (shard,) = (tmp_path / 'text').glob('*.arrow')
    shard.unlink()
    with pytest.raises(ValueError, match='cannot be read as a saved data set .*save it again'):
        build(str(tmp_path / 'text'), split='', with_label=False)


def test_images_that_are_paths(tmp_path):
    Image.fromarray(pixels(3)).save(tmp_path / 'x.png')
    rows = dict(image=[dict(bytes=None, path=str(tmp_path / 'x.png'))])
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / 'data'))
    dataset = build(str(tmp_path / 'data'), split='', with_label=False)
    np.testing.assert_array_equal(dataset[0]['img'], pixels(3)[:, :, ::-1])


def test_load_image_from_bytes(tmp_path):
    Image.fromarray(pixels(3)).save(tmp_path / 'x.png')
    results = dict(img_bytes=(tmp_path / 'x.png').read_bytes(), img_path='x')
    out = LoadImageFromBytes(to_float32=True, color_type='grayscale').transform(results)
    assert out['img'].shape == (48, 64) and out['img'].dtype == np.float32 and set(out) == {
        'img', 'img_path', 'img_shape', 'ori_shape'
    }  # fmt: skip


def test_without_the_library(tmp_path, monkeypatch):
    (tmp_path / 'state.json').write_text('{}')
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(ImportError, match='`datasets`, which is not installed: pip install datasets'):
        HuggingFaceImageDataset(str(tmp_path), split='')


def test_recipe_differs_in_the_data_only():
    configs = [
        Config.fromfile(f'configs/pretrain/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k{s}.py') for s in ('', '-hf')
    ]
    folder, hugging_face = (cfg.to_dict() for cfg in configs)
    # One pipeline for both: `LoadEncodedImage` reads a path and a row's bytes alike.
    assert {k for k in folder if folder[k] != hugging_face.get(k)} == {'data_root', 'train_dataloader'}
    loaders = [dict(cfg['train_dataloader'], dataset=None) for cfg in (folder, hugging_face)]
    assert loaders[0] == loaders[1]
