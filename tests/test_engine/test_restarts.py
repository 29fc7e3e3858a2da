"""Runs that torchrun starts anew: they go on from their own checkpoints, and all processes from the same."""

import os
import shutil
import time

import pytest
import torch

from nepa_mm.checkpoints import read_checkpoint
from nepa_mm.engine import restarts
from tests.killed_runs import config, train


@pytest.fixture
def restarted(monkeypatch):
    """The environment of a process that has been started anew, of a run that began ten seconds ago."""
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    monkeypatch.setenv('RUN_STARTED', str(int(time.time()) - 10))


@pytest.mark.parametrize(
    ('count', 'counts', 'age', 'expected'),
    [
        ('0', [0], 0, False),
        ('0', [0, 0], 0, False),
        ('1', [1], 0, True),
        ('0', [0, 2], 0, True),  # the process that died was one of another node
        ('1', [1], 100, False),
        ('1', [1], None, False),
    ],
)
def test_all_go_on_from_a_checkpoint_of_this_run(tmp_path, monkeypatch, restarted, log, count, counts, age, expected):
    """Not from what was in the work directory before it; age in seconds, None: there is no checkpoint."""
    gathered = []
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', count)
    monkeypatch.setattr(restarts, 'all_gather_object', lambda own: gathered.append(own) or counts)
    if age is not None:
        (tmp_path / 'epoch_1.pth').touch()
        os.utime(tmp_path / 'epoch_1.pth', (time.time() - age,) * 2)
    assert restarts.resumes_itself(str(tmp_path)) is expected
    assert gathered == [int(count)]
    told = [text for _, text in log if text.startswith(f'Restart {max(counts)} by torchrun: ')]
    assert len(told) == (max(counts) > 0)
    assert all(('resuming from the last checkpoint' in text) is expected for text in told)


def test_the_main_process_looks_for_all(tmp_path, monkeypatch, restarted):
    """A shared disk may not show a checkpoint to every node yet, or show one that the main process does not see."""
    heard = []

    def broadcast(answer):
        heard.append(answer[0])
        answer[0] = False

    monkeypatch.setattr(restarts, 'is_main_process', lambda: False)
    monkeypatch.setattr(restarts, 'broadcast_object_list', broadcast)
    (tmp_path / 'epoch_1.pth').touch()
    assert restarts.resumes_itself(str(tmp_path)) is False
    assert heard == [False]


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp('unbroken')
    train(config(folder, by_epoch=True))
    return folder


def test_a_restart_leaves_what_the_command_line_said(tmp_path, unbroken, restarted, log):
    """It was told to resume from another file, and has written a checkpoint of its own since."""
    shutil.copy(unbroken / 'epoch_2.pth', tmp_path)
    given = str(unbroken / 'epoch_3.pth')
    train(config(tmp_path, by_epoch=True, auto_resume=False, resume=True, load_from=given))
    assert [text for _, text in log if text.startswith('resumed epoch')] == ['resumed epoch: 2, iter: 9']
    assert_same_weights(tmp_path, unbroken)


def test_a_restart_without_a_checkpoint_of_its_own_starts_as_at_first(tmp_path, unbroken, restarted, log):
    shutil.copy(unbroken / 'epoch_2.pth', tmp_path)
    os.utime(tmp_path / 'epoch_2.pth', (time.time() - 100,) * 2)
    train(config(tmp_path, by_epoch=True, auto_resume=False))
    assert not any(text.startswith('resumed epoch') for _, text in log)
    assert_same_weights(tmp_path, unbroken)


def assert_same_weights(first, second):
    a, b = (read_checkpoint(folder / 'epoch_3.pth')['state_dict'] for folder in (first, second))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
