"""Folders that do not exist or hold no image are told in a line, before anything is built."""

import pytest
from mmengine.config import Config

from nepa_mm.apis.cli import UsageError
from nepa_mm.apis.data_check import check_data

LOADERS = ('train_dataloader', 'val_dataloader')


def loaders(**dataset) -> Config:
    return Config({name: dict(dataset=dict(type='CustomDataset', **dataset)) for name in LOADERS})


def message(cfg: Config, names=LOADERS) -> str:
    with pytest.raises(UsageError) as error:
        check_data(cfg, names)
    return str(error.value)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_loaders_are_named(here):
    assert message(loaders(data_root='no/where')) == (
        f"train_dataloader.dataset.data_root='no/where' does not exist (seen from {here}); put the data there, or name "
        'its folder: --cfg-options train_dataloader.dataset.data_root=... val_dataloader.dataset.data_root=...'
    )
    assert message(loaders(data_root='no/where'), LOADERS[1:]).startswith("val_dataloader.dataset.data_root='no/where'")


def test_wrapped_data_sets(here):
    inner = dict(type='CustomDataset', data_root='gone')
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[inner]))
    cfg = Config(dict(train_dataloader=dict(dataset=wrapped), val_dataloader=None))
    assert message(cfg).startswith("train_dataloader.dataset.dataset.datasets.0.data_root='gone' does not exist")


def test_a_variable_at_the_top(here):
    """--cfg-options come too late for it, and each loader would have to be named."""
    (here / 'mine.py').write_text(
        "data_root = 'gone'\n"
        "train_dataloader = val_dataloader = dict(dataset=dict(type='FolderSegDataset', data_root=data_root))\n"
    )
    assert message(Config.fromfile(here / 'mine.py')) == (
        f"data_root='gone' does not exist (seen from {here}); put the data there, or set data_root at the top of "
        f'{here / "mine.py"}, for train_dataloader.dataset and val_dataloader.dataset'
    )
    # What stands in a base is not at the top of the config.
    (here / 'leaf.py').write_text("_base_ = './mine.py'\n")
    assert '--cfg-options train_dataloader.dataset.data_root=...' in message(Config.fromfile(here / 'leaf.py'))


@pytest.mark.parametrize('prefix', ['train', dict(img_path='train')])
def test_folders_without_images(here, prefix):
    cfg = loaders(data_root='data', data_prefix=prefix, with_label=False)
    (here / 'data').mkdir()
    assert message(cfg) == (
        f"train_dataloader.dataset: 'data/train' is not a folder (seen from {here}); put images there, or name their "
        'folder: --cfg-options train_dataloader.dataset.data_root=...'
    )
    (here / 'data/train/deep').mkdir(parents=True)
    (here / 'data/train/deep/notes.txt').touch()
    assert message(cfg) == (
        "train_dataloader.dataset: no image (.jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif) in 'data/train' or below; put "
        'images there, or name their folder: --cfg-options train_dataloader.dataset.data_root=...'
    )
    (here / 'data/train/deep/A.JPG').touch()
    check_data(cfg, LOADERS)
    assert 'no image (.gif)' in message(loaders(data_root='data', extensions=['.GIF']))


def test_what_is_left_to_the_data_sets(here):
    (here / 'data').mkdir()
    check_data(loaders(data_root='data', ann_file='list.txt'), LOADERS)
    check_data(loaders(data_root='s3://bucket/data'), LOADERS)
    check_data(Config(dict(train_dataloader=dict(dataset=dict(type='Own')), val_dataloader=None)), LOADERS)
