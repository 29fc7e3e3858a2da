"""A run's worker processes end with it, and not before."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from nepa_mm.checkpoints import read_checkpoint
from nepa_mm.engine import RunStopped
from tests.killed_runs import config, train
from tests.own_process import CONTEXT


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


# ---------------------------------------------------------------- signals


def train_and_wait(folder, workers):
    """Train as a process group of its own, as torchrun starts one, until a signal comes."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cfg = config(folder, by_epoch=True, workers=workers, val_dataloader=None, val_cfg=None, val_evaluator=None)
    cfg.default_hooks.checkpoint.update(save_best=None)
    cfg.default_hooks.stop = dict(type='StopOnSignalHook')
    cfg.custom_hooks.append(dict(type='WaitForSignal'))
    try:
        train(cfg)
    except RunStopped as stopped:
        return stopped.code
    except KeyboardInterrupt:
        return 3
    return 4


@HOOKS.register_module(force=True)
class WaitForSignal(Hook):
    """Writes down the process and its workers in the second iteration, and waits to be told to stop."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter != 1:
            return
        workers = [process.pid for process in multiprocessing.active_children()]
        partial = Path(runner.work_dir, 'partial')
        partial.write_text(' '.join(map(str, [os.getpid(), *workers])))
        partial.rename(Path(runner.work_dir, 'processes'))
        stop = next(hook for hook in runner.hooks if type(hook).__name__ == 'StopOnSignalHook')
        deadline = time.monotonic() + 300
        while stop.received is None and time.monotonic() < deadline:
            time.sleep(0.02)


@pytest.fixture
def waiting(tmp_path):
    """A training that waits for a signal; its process, its number and its workers'."""
    process = CONTEXT.Process(target=exit_with, args=(train_and_wait, tmp_path, 2))
    process.start()
    deadline = time.monotonic() + 300
    while not (tmp_path / 'processes').exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    own, *workers = map(int, (tmp_path / 'processes').read_text().split())
    assert own == process.pid and len(workers) == 2
    yield process, workers
    process.kill()
    process.join()


def exit_with(function, *args):
    os._exit(function(*args))


def is_running(pid):
    """Whether there is a process of this number that has not ended, though perhaps nobody has asked for its end."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def assert_ended(workers):
    deadline = time.monotonic() + 60  # torch's workers look every 5 seconds for their parent
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, workers
        time.sleep(0.05)


def test_workers_outlive_the_signal_that_their_process_saves_after(waiting, tmp_path):
    process, workers = waiting
    os.killpg(process.pid, signal.SIGTERM)
    process.join(300)
    assert process.exitcode == 75
    (last,) = tmp_path.glob('*.pth')
    # The first update after it, of three iterations each.
    assert read_checkpoint(last)['meta']['iter'] == 3
    assert_ended(workers)


def test_ctrl_c_in_a_terminal_ends_workers(waiting):
    process, workers = waiting
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.join(300)
    assert process.exitcode == 3
    assert_ended(workers)


def test_workers_end_after_a_process_that_was_killed(waiting):
    process, workers = waiting
    process.kill()
    process.join(300)
    assert_ended(workers)
