"""A run's worker processes end with it."""

import multiprocessing

import pytest

from tests.killed_runs import config, train


@pytest.mark.parametrize('by_epoch', [False, True])
def test_no_worker_is_left_after_training(tmp_path, by_epoch):
    cfg = config(tmp_path, by_epoch)
    cfg.val_dataloader.update(num_workers=1, persistent_workers=True)
    before = set(multiprocessing.active_children())
    runner = train(cfg)
    assert runner.iter == (12 if by_epoch else 14)
    assert set(multiprocessing.active_children()) == before


def test_workers_end_after_an_error_too(tmp_path, monkeypatch):
    cfg = config(tmp_path, by_epoch=False)
    monkeypatch.setattr('nepa_mm.engine.SafeCheckpointHook.after_train_iter', fail)
    before = set(multiprocessing.active_children())
    with pytest.raises(RuntimeError, match='in between'):
        train(cfg)
    assert set(multiprocessing.active_children()) == before


def fail(self, runner, *args, **kwargs):
    raise RuntimeError('in between')


def test_validation_can_be_repeated(tmp_path):
    cfg = config(tmp_path, by_epoch=True)
    cfg.val_dataloader.update(num_workers=1, persistent_workers=True)
    before = set(multiprocessing.active_children())
    runner = train(cfg)
    first = runner.val()
    assert set(first) == {'logit'}
    assert runner.val() == first
    assert set(multiprocessing.active_children()) == before
