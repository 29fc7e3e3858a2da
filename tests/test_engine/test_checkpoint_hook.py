"""SafeCheckpointHook: full disks, gradient accumulation, what is kept and what is removed."""

import errno
import os
import re
import resource
import shutil
from pathlib import Path

import pytest
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS, RUNNERS

from nepa_mm.checkpoints import CheckpointError, read_checkpoint, writing
from nepa_mm.engine import SafeCheckpointHook
from tests.killed_runs import config, train
from tests.own_process import run_in_own_process


def simple(work_dir, checkpoint=None, **kwargs):
    """14 iterations without validation, accumulation and workers; a checkpoint every second."""
    cfg = config(work_dir, by_epoch=False, workers=0, accumulation=1, **kwargs)
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.custom_hooks = []
    cfg.visualizer = dict(type='Visualizer', vis_backends=[dict(type='PatientVisBackend')])
    cfg.default_hooks.checkpoint = dict(type='SafeCheckpointHook', by_epoch=False, interval=2) | (checkpoint or {})
    return cfg


def scored(work_dir, scores, **kwargs):
    """As above, validated every second iteration with the scores given."""
    cfg = config(work_dir, by_epoch=False, workers=0, accumulation=1, **kwargs)
    cfg.train_cfg.val_interval = 2
    cfg.val_evaluator = dict(type='GivenScores', scores=scores)
    cfg.default_hooks.checkpoint = dict(
        type='SafeCheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2, save_best='score', rule='greater'
    )
    return cfg


@METRICS.register_module(force=True)
class GivenScores(BaseMetric):
    """Scores that a test has chosen, one after the other."""

    def __init__(self, scores):
        super().__init__()
        self.scores = iter(scores)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(score=next(self.scores))


@HOOKS.register_module(force=True)
class LimitFileSize(Hook):
    """Lets the kernel refuse to write more than some bytes to a file, from the start of training on."""

    def __init__(self, limit):
        self.limit = limit

    def before_train(self, runner):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))


class Died(BaseException):
    """Not caught by anyone, as a kill is not."""


@HOOKS.register_module(force=True)
class DieAt(Hook):
    """Ends a run before an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            raise Died


def die_before_removing(monkeypatch, iteration):
    """Let runs die when the checkpoint of an iteration is written and named, before others are removed."""
    remove = SafeCheckpointHook._remove_outdated

    def dying(self, runner):
        if self._saved_at == iteration and runner.iter:
            raise Died
        remove(self, runner)

    monkeypatch.setattr(SafeCheckpointHook, '_remove_outdated', dying)


@pytest.fixture
def disk(monkeypatch):
    """A disk that is full while files are written whose names match."""

    class Disk:
        full = None
        refused: list = []

    fsync = os.fsync

    def fsync_or_fail(handle):
        name = Path(os.readlink(f'/proc/self/fd/{handle}')).name
        if Disk.full and re.search(Disk.full, name):
            Disk.refused.append(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    Disk.refused = []
    monkeypatch.setattr(writing.os, 'fsync', fsync_or_fail)
    return Disk


def names(folder):
    return sorted(file.name for file in folder.iterdir() if file.is_file() and file.suffix in ('.pth', '.writing'))


def note(folder):
    return Path((folder / 'last_checkpoint').read_text()).name


# ---------------------------------------------------------------- full disks


def test_a_full_disk_costs_only_the_checkpoints_of_its_time(tmp_path, disk, log):
    disk.full = r'iter_(4|6|8)\.'
    runner = train(simple(tmp_path, dict(max_keep_ckpts=2)))
    assert disk.refused == ['iter_4.pth.writing', 'iter_6.pth.writing', 'iter_8.pth.writing']
    assert runner.iter == 14
    assert names(tmp_path) == ['iter_12.pth', 'iter_14.pth']
    assert note(tmp_path) == 'iter_14.pth'
    told = [text for _, text in log if 'could not be written' in text]
    assert told == [
        f'Checkpoint iter_{n}.pth could not be written: [Errno 28] No space left on device. The files before it are '
        'kept; the run goes on and tries again when the next one is due.'
        for n in (4, 6, 8)
    ]


def test_old_files_stay_until_a_new_one_is_there(tmp_path, disk):
    disk.full = r'iter_(6|8|10|12|14)\.'
    with pytest.raises(CheckpointError, match='iter_14.pth: .*No space left on device') as error:
        train(simple(tmp_path, dict(max_keep_ckpts=2)))
    assert f'Its last whole checkpoint is {tmp_path}/iter_4.pth: make room and go on from there' in str(error.value)
    assert names(tmp_path) == ['iter_2.pth', 'iter_4.pth']
    assert note(tmp_path) == 'iter_4.pth'
    disk.full = None
    assert train(simple(tmp_path, dict(max_keep_ckpts=2))).iter == 14
    assert names(tmp_path) == ['iter_12.pth', 'iter_14.pth']


def test_the_note_never_names_what_is_not_there(tmp_path, disk):
    """The file is written, the note is not: the file before is still named, and kept."""
    disk.full = 'last_checkpoint'
    with pytest.raises(CheckpointError, match='iter_14.pth'):
        train(simple(tmp_path, dict(max_keep_ckpts=1)))
    assert not (tmp_path / 'last_checkpoint').exists()
    disk.full = None
    cfg = simple(tmp_path, dict(max_keep_ckpts=1))
    cfg.train_cfg.max_iters = 16
    assert train(cfg).iter == 16
    assert note(tmp_path) == 'iter_16.pth'
    assert (tmp_path / 'iter_16.pth').is_file()


def test_what_could_not_be_named_is_removed_later(tmp_path, disk, monkeypatch):
    written = writing.os.fsync

    def fsync(handle):
        if Path(os.readlink(f'/proc/self/fd/{handle}')).name == 'iter_8.pth.writing':
            disk.full = None
        written(handle)

    monkeypatch.setattr(writing.os, 'fsync', fsync)
    disk.full = 'last_checkpoint'
    train(simple(tmp_path, dict(max_keep_ckpts=2)))
    assert names(tmp_path) == ['iter_12.pth', 'iter_14.pth']


def test_a_limit_of_the_kernel(tmp_path):
    """Not a made error: no file of the process may pass 6 kB."""
    assert run_in_own_process(train_with_small_files, tmp_path) == 0
    assert names(tmp_path) == []


def train_with_small_files(work_dir):
    runner = RUNNERS.build(simple(work_dir))
    runner.register_hook(dict(type='LimitFileSize', limit=6_000))
    try:
        runner.train()
    except CheckpointError as error:
        return 0 if 'File too large' in str(error) and runner.iter == 14 else 2
    return 3


def test_other_errors_end_the_run(tmp_path, monkeypatch):
    def fail(*args):
        raise MemoryError('no memory')

    monkeypatch.setattr(writing.os, 'fsync', fail)
    with pytest.raises(MemoryError):
        train(simple(tmp_path))


# ---------------------------------------------------------------- what is kept


def test_a_run_resumed_removes_what_the_run_before_has_written(tmp_path):
    cfg = simple(tmp_path, dict(max_keep_ckpts=2))
    cfg.train_cfg.max_iters = 4
    train(cfg)
    assert names(tmp_path) == ['iter_2.pth', 'iter_4.pth']
    (tmp_path / 'iter_6.pth.writing').write_bytes(b'half')
    train(simple(tmp_path, dict(max_keep_ckpts=2)))
    assert names(tmp_path) == ['iter_12.pth', 'iter_14.pth']


def test_what_a_kill_has_left_to_be_removed(tmp_path, monkeypatch):
    first, second = tmp_path / 'first', tmp_path / 'second'
    with monkeypatch.context() as patch:
        die_before_removing(patch, 8)
        with pytest.raises(Died):
            train(simple(first, dict(max_keep_ckpts=2)))
    assert names(first) == ['iter_4.pth', 'iter_6.pth', 'iter_8.pth']
    second.mkdir()
    (second / 'iter_4.pth').write_bytes(b'of another run')
    train(simple(second, auto_resume=False, resume=True, load_from=str(first / 'iter_8.pth')))
    assert names(first) == ['iter_4.pth', 'iter_6.pth', 'iter_8.pth']
    assert (second / 'iter_4.pth').read_bytes() == b'of another run'
    cfg = simple(first, dict(max_keep_ckpts=2))
    cfg.train_cfg.max_iters = 8
    train(cfg)
    assert names(first) == ['iter_6.pth', 'iter_8.pth']


def test_a_best_that_a_kill_has_left_to_be_removed(tmp_path, monkeypatch):
    """Iteration 4 has a better score than 2: its checkpoint, written again, makes the weights of 2 outdated."""
    remove = SafeCheckpointHook._remove_outdated

    def dying(self, runner):
        if any('best' in path for path in self._outdated) and self._named_bests[0].endswith('iter_4.pth'):
            raise Died
        remove(self, runner)

    with monkeypatch.context() as patch:
        patch.setattr(SafeCheckpointHook, '_remove_outdated', dying)
        with pytest.raises(Died):
            train(scored(tmp_path, [1, 2]))
    assert names(tmp_path)[:2] == ['best_score_iter_2.pth', 'best_score_iter_4.pth']
    train(scored(tmp_path, [0] * 5))
    assert names(tmp_path) == ['best_score_iter_4.pth', 'iter_12.pth', 'iter_14.pth']


def test_the_best_is_kept_and_named(tmp_path):
    train(scored(tmp_path, [1, 3, 2, 5, 4, 0, 0]))
    assert names(tmp_path) == ['best_score_iter_8.pth', 'iter_12.pth', 'iter_14.pth']
    info = read_checkpoint(tmp_path / 'iter_14.pth')['message_hub']['runtime_info']
    assert (info['best_score'], Path(info['best_ckpt']).name) == (5, 'best_score_iter_8.pth')
    assert 'optimizer' not in read_checkpoint(tmp_path / 'best_score_iter_8.pth')


@pytest.mark.parametrize(('keep', 'kept'), [(-1, [4, 8, 12, 14]), (2, [12, 14]), (3, [8, 12, 14])])
def test_a_better_score_adds_no_checkpoint(tmp_path, keep, kept):
    cfg = scored(tmp_path, range(7))
    cfg.default_hooks.checkpoint.update(interval=4, max_keep_ckpts=keep)
    train(cfg)
    assert names(tmp_path) == sorted(['best_score_iter_14.pth', *(f'iter_{n}.pth' for n in kept)])


def test_the_best_that_the_last_checkpoint_names_stays_until_the_next(tmp_path):
    cfg = scored(tmp_path, [1, 2, 3, 4, 5])
    cfg.default_hooks.checkpoint.interval = 6
    dying = cfg.copy()
    dying.custom_hooks = [*cfg.custom_hooks, dict(type='DieAt', iteration=11)]
    with pytest.raises(Died):
        train(dying)
    assert names(tmp_path) == ['best_score_iter_10.pth', 'best_score_iter_6.pth', 'iter_6.pth']
    info = read_checkpoint(tmp_path / 'iter_6.pth')['message_hub']['runtime_info']
    assert (info['best_score'], Path(info['best_ckpt']).name) == (3, 'best_score_iter_6.pth')
    cfg.val_evaluator.scores = [4, 5, 0, 0]
    cfg.experiment_name += '-again'
    train(cfg)
    assert names(tmp_path) == ['best_score_iter_10.pth', 'iter_12.pth', 'iter_14.pth']
    info = read_checkpoint(tmp_path / 'iter_14.pth')['message_hub']['runtime_info']
    assert (info['best_score'], Path(info['best_ckpt']).name) == (5, 'best_score_iter_10.pth')


def test_a_copied_run_goes_on_in_its_own_folder(tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    cfg = scored(first, [1, 3])
    cfg.train_cfg.max_iters = 4
    train(cfg)
    shutil.copytree(first, second)
    before = names(first)
    cfg = scored(second, [0] * 5)
    cfg.default_hooks.checkpoint.published_keys = ['state_dict']
    runner = train(cfg)
    assert names(first) == before  # also nothing published
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))
    assert hook.best_ckpt_path == str(second / 'best_score_iter_4.pth')
    assert [name for name in names(second) if '-' not in name] == [
        *('best_score_iter_4.pth', 'iter_12.pth', 'iter_14.pth')
    ]


def test_the_old_best_stays_where_the_new_one_cannot_be_written(tmp_path, disk):
    disk.full = r'best_score_iter_(6|8)\.'
    train(scored(tmp_path, [1, 2, 5, 4, 3, 0, 0]))
    # 5 and 4 were lost with their files, so 3 is better than what is on the disk
    assert names(tmp_path) == ['best_score_iter_10.pth', 'iter_12.pth', 'iter_14.pth']
    info = read_checkpoint(tmp_path / 'iter_14.pth')['message_hub']['runtime_info']
    assert info['best_score'] == 3


def test_a_best_that_was_never_written_is_an_error_at_the_end(tmp_path, disk):
    disk.full = r'best_score_iter_14\.'
    with pytest.raises(CheckpointError, match='best_score_iter_14.pth'):
        train(scored(tmp_path, [1, 0, 0, 0, 0, 0, 9]))
    assert names(tmp_path) == ['best_score_iter_2.pth', 'iter_12.pth', 'iter_14.pth']


def test_several_scores(tmp_path):
    class Two(GivenScores):
        def compute_metrics(self, results):
            up, down = next(self.scores)
            return {'up/score': up, 'loss': down}

    METRICS.register_module(name='TwoScores', module=Two, force=True)
    cfg = scored(tmp_path, [(1, 5), (2, 6), (1, 4), (1, 9), (1, 9), (1, 9), (1, 9)])
    cfg.val_evaluator.type = 'TwoScores'
    cfg.default_hooks.checkpoint.update(save_best=['up/score', 'loss'], rule=['greater', 'less'])
    train(cfg)
    assert names(tmp_path)[:2] == ['best_loss_iter_6.pth', 'best_up_score_iter_4.pth']
    assert len(names(tmp_path)) == 4


def test_the_first_score_where_none_is_named(tmp_path):
    class Accuracy(GivenScores):
        def compute_metrics(self, results):
            return dict(acc=next(self.scores))

    METRICS.register_module(name='AccuracyScores', module=Accuracy, force=True)
    cfg = scored(tmp_path, [1, 3, 2, 2, 2, 2, 2])
    cfg.val_evaluator.type = 'AccuracyScores'
    cfg.default_hooks.checkpoint.update(save_best='auto', rule=None)
    train(cfg)
    assert 'best_acc_iter_4.pth' in names(tmp_path)


def test_the_best_of_a_run_in_another_folder_is_left_alone(tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    cfg = scored(first, [5, 1])
    cfg.train_cfg.max_iters = 4
    train(cfg)
    train(scored(second, [1, 6, 0, 0, 0, 0], auto_resume=False, resume=True, load_from=str(first / 'iter_4.pth')))
    assert names(first) == ['best_score_iter_2.pth', 'iter_2.pth', 'iter_4.pth']
    assert names(second) == ['best_score_iter_6.pth', 'iter_12.pth', 'iter_14.pth']


def test_published(tmp_path, disk):
    cfg = simple(tmp_path, dict(published_keys=['meta', 'state_dict'], interval=14))
    train(cfg)
    (published,) = (name for name in names(tmp_path) if '-' in name)
    assert re.fullmatch(r'iter_14-[0-9a-f]{8}\.pth', published)
    assert set(read_checkpoint(tmp_path / published)) == {'meta', 'state_dict'}
    (tmp_path / published).unlink()
    disk.full = '-'
    cfg.experiment_name += '-again'
    cfg.train_cfg.max_iters = 15
    with pytest.raises(CheckpointError, match=r'iter_15-[0-9a-f]{8}.pth: .*No space'):
        train(cfg)


# ---------------------------------------------------------------- gradient accumulation


@pytest.mark.parametrize('by_epoch', [False, True])
def test_a_checkpoint_waits_for_the_update(tmp_path, by_epoch, log):
    """Accumulation 3 over epochs of 4, or a checkpoint every 4: iterations 4 and 8 wait for 6 and 9."""
    cfg = config(tmp_path, by_epoch, workers=0)
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=-1, save_best=None)
    train(cfg)
    found = {file.name: read_checkpoint(file)['meta'] for file in tmp_path.glob('*.pth')}
    places = {name: (meta['epoch'], meta['iter']) for name, meta in found.items()}
    if by_epoch:
        assert places == {'epoch_1.pth': (1, 6), 'epoch_2.pth': (2, 9), 'epoch_3.pth': (3, 12)}
    else:
        assert places == {f'iter_{n}.pth': (0, n) for n in (6, 9, 12, 14)}
    assert sum('waits for the next update' in text for _, text in log) == 2


def test_the_default_of_a_runner(tmp_path):
    cfg = simple(tmp_path)
    cfg.default_hooks = {}
    runner = RUNNERS.build(cfg)
    assert [type(hook).__name__ for hook in runner.hooks if 'Checkpoint' in type(hook).__name__] == [
        'SafeCheckpointHook'
    ]
