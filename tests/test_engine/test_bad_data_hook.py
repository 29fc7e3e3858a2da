"""BadDataHook: what a run does about images it cannot read and labels it does not know."""

import errno
import itertools
import logging
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmpretrain.structures import DataSample
from torch import nn

from nepa_mm.datasets import CheckedDataset, LabelError, TooManyBadImagesError, UnreadableImage
from nepa_mm.engine import BadDataHook, NEPARunner
from nepa_mm.engine.hooks.bad_data_hook import write_list

RUN = itertools.count()


@DATASETS.register_module(force=True)
class BadDataTestImages(torch.utils.data.Dataset):
    """Ten images, of which some are unreadable, and one may have a wrong label."""

    def __init__(self, bad=(), wrong=None):
        self.bad, self.wrong = bad, wrong

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index in self.bad:
            raise UnreadableImage(f'{index}.jpg', f'empty, {index} bytes')
        sample = DataSample(metainfo=dict(img_path=f'{index}.jpg'))
        return dict(inputs=torch.ones(4), data_samples=sample.set_gt_label(7 if index == self.wrong else index % 3))


@MODELS.register_module(force=True)
class BadDataTestModel(BaseModel):
    """As little of a classifier as there can be."""

    def __init__(self, head):
        super().__init__()
        self.head = nn.Linear(4, head['num_classes'])

    def forward(self, inputs, data_samples, mode='tensor'):
        logits = self.head(torch.stack(inputs))
        return dict(loss=logits.square().mean()) if mode == 'loss' else list(logits)


@METRICS.register_module(force=True)
class BadDataTestMetric(BaseMetric):
    """Counts."""

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(count=len(results))


def loader(batch=2, **dataset):
    sampler = dict(type='DefaultSampler', shuffle=False)
    return dict(batch_size=batch, num_workers=0, sampler=sampler, dataset=dict(type='BadDataTestImages', **dataset))


def build(work_dir: Path, train=None, val=None, hook=None, epochs=1, **options) -> NEPARunner:
    cfg = dict(
        model=dict(type='BadDataTestModel', head=dict(num_classes=3)),
        train_dataloader=loader(**(train or {})),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        work_dir=str(work_dir),
        experiment_name=f'bad_data_{next(RUN)}',
        default_hooks={} if hook is None else dict(bad_data=hook),
        **options,
    )
    if val is not None:
        cfg |= dict(val_dataloader=loader(**val), val_cfg=dict(), val_evaluator=dict(type='BadDataTestMetric'))
    return NEPARunner.from_cfg(Config(cfg))


def hook(**options):
    return dict(type='BadDataHook', **options)


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What the runs warn of."""
    texts: list[str] = []
    monkeypatch.setattr(
        'mmengine.logging.MMLogger.callHandlers',
        lambda self, record: texts.append(record.getMessage()) if record.levelno >= logging.WARNING else None,
    )
    return texts


def about_images(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith('Bad images')]


def test_the_run_goes_on_and_reports(tmp_path, lines):
    runner = build(tmp_path, dict(bad=(1, 4)), hook=hook(max_bad_share=0.2, interval=1), epochs=2)
    runner.train()
    assert isinstance(runner.train_dataloader.dataset, CheckedDataset)
    assert runner.epoch == 2
    listed = tmp_path / 'bad_images.txt'
    assert listed.read_text() == '1.jpg\tempty, 1 bytes\n4.jpg\tempty, 4 bytes\n'
    words = 'training images cannot be read ({}); others took their place'
    assert about_images(lines) == [
        f'Bad images: 1 of 10 {words.format("10.00%")}. New in {listed}:\n  1.jpg: empty, 1 bytes',
        f'Bad images: 2 of 10 {words.format("20.00%")}. New in {listed}:\n  4.jpg: empty, 4 bytes',
        f'Bad images: 2 of 10 {words.format("20.00%")}; the list is in {listed}',
    ]


def test_nothing_to_report(tmp_path, lines):
    build(tmp_path, hook=hook()).train()
    assert about_images(lines) == [] and not (tmp_path / 'bad_images').exists()


def test_without_the_hook_it_is_an_error(tmp_path):
    with pytest.raises(UnreadableImage, match=r"image '4.jpg' cannot be read"):
        build(tmp_path, dict(bad=(4,))).train()


def test_too_many(tmp_path):
    with pytest.raises(TooManyBadImagesError, match=r'^2 of 10 training images cannot be read'):
        build(tmp_path, dict(bad=(1, 4)), hook=hook(max_bad_share=0.1)).train()


def test_other_processes_count_too(tmp_path, lines, monkeypatch):
    """What each found alone is no more than its share; together it is."""
    other = {'7.jpg': 'empty, 7 bytes', '4.jpg': 'empty, 4 bytes'}
    monkeypatch.setattr('nepa_mm.engine.hooks.bad_data_hook.all_gather_object', lambda known: [known, other])
    build(tmp_path, dict(bad=(4,)), hook=hook(max_bad_share=0.2)).train()
    assert (tmp_path / 'bad_images.txt').read_text().count('\n') == 2
    with pytest.raises(TooManyBadImagesError, match=r'(?s)^2 of 10 .*bad_images.txt:.*7.jpg: empty, 7 bytes'):
        build(tmp_path, dict(bad=(4,)), hook=hook(max_bad_share=0.1)).train()


def test_a_resumed_run_goes_on_with_its_list(tmp_path, lines):
    build(tmp_path, dict(bad=(1, 4)), hook=hook(max_bad_share=0.3)).train()
    # Another image has become unreadable, and a process of the first run is no more.
    (tmp_path / 'bad_images/rank_3.jsonl').write_text('\n["6.jpg", "of rank 3"]\n')
    build(tmp_path, dict(bad=(1, 2)), hook=hook(max_bad_share=0.4), epochs=2, resume=True).train()
    assert [line.split('\t')[0] for line in (tmp_path / 'bad_images.txt').read_text().splitlines()] == [
        '1.jpg',
        '2.jpg',
        '4.jpg',
        '6.jpg',
    ]
    # A run from the beginning makes its own.
    build(tmp_path, dict(bad=(5,)), hook=hook(max_bad_share=0.4)).train()
    assert (tmp_path / 'bad_images.txt').read_text() == '5.jpg\tempty, 5 bytes\n'
    build(tmp_path, hook=hook()).train()
    assert not (tmp_path / 'bad_images.txt').exists()


def full_disk(monkeypatch, times):
    """Every write of the list fails so many times, as on a full disk."""
    original, count = Path.write_text, itertools.count()

    def write_text(self, *args, **kwargs):
        if self.name == 'bad_images.txt.partial' and next(count) < times:
            self.touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, 'write_text', write_text)


def test_a_full_disk_costs_only_the_list_until_it_can_be_written(tmp_path, lines, monkeypatch):
    full_disk(monkeypatch, 3)  # looks after iterations 1, 2 and 3; images 1 and 4 are found in the first and third
    build(tmp_path, dict(bad=(1, 4)), hook=hook(max_bad_share=0.2, interval=1)).train()
    assert (tmp_path / 'bad_images.txt').read_text() == '1.jpg\tempty, 1 bytes\n4.jpg\tempty, 4 bytes\n'
    assert not (tmp_path / 'bad_images.txt.partial').exists()
    assert [line.split(': [')[0] for line in lines if 'could not be written' in line] == [
        f'{tmp_path / "bad_images.txt"} could not be written'
    ]
    assert about_images(lines)[-1].endswith(f'the list is in {tmp_path / "bad_images.txt"}')


def test_a_disk_that_stays_full_does_not_hide_what_was_found(tmp_path, lines, monkeypatch):
    full_disk(monkeypatch, 100)
    build(tmp_path, dict(bad=(1,)), hook=hook(max_bad_share=0.2)).train()
    assert about_images(lines)[-1].endswith(f'the list could not be written to {tmp_path / "bad_images.txt"}')
    assert sorted(path.name for path in tmp_path.glob('bad_images*')) == ['bad_images']
    with pytest.raises(TooManyBadImagesError, match=r'(?s)^1 of 10 .*rank_0\.jsonl:.*1.jpg: empty, 1 bytes'):
        build(tmp_path, dict(bad=(1,)), hook=hook(max_bad_share=0.05)).train()


def test_evaluation_never_skips(tmp_path):
    with pytest.raises(UnreadableImage, match=r"image '4.jpg' cannot be read"):
        build(tmp_path, val=dict(bad=(4,)), hook=hook(max_bad_share=1)).train()


@pytest.mark.parametrize('options', [dict(train=dict(wrong=5)), dict(val=dict(wrong=5))], ids=['train', 'val'])
def test_labels_that_are_no_class(tmp_path, options):
    with pytest.raises(
        LabelError, match=r"^image '5.jpg' has label 7, but the model has 3 classes, 0 to 2; tools/misc/v"
    ):
        build(tmp_path, hook=hook(), **options).train()


def test_a_list_is_written_whole_and_in_lines(tmp_path):
    write_list(tmp_path / 'bad_images.txt', {'b': 'two\nlines\there', 'a': 'x'})
    assert (tmp_path / 'bad_images.txt').read_text() == 'a\tx\nb\ttwo lines here\n'
    assert [path.name for path in tmp_path.iterdir()] == ['bad_images.txt']


def test_arguments():
    with pytest.raises(ValueError, match=r'max_bad_share=1.5 is a part of the images, from 0 to 1'):
        BadDataHook(max_bad_share=1.5)
    with pytest.raises(ValueError, match='interval=0 is not positive'):
        BadDataHook(interval=0)
