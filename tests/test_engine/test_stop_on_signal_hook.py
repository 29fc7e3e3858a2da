"""StopOnSignalHook in a run of this process; several processes: tests/test_tools/test_clusters.py."""

import os
import signal

import pytest
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS

from nepa_mm.checkpoints import read_checkpoint
from nepa_mm.engine import RunStopped, StopOnSignalHook
from tests.test_engine.two_processes import config


class Signal(Hook):
    """Sends itself a signal during an iteration."""

    def __init__(self, at, number=signal.SIGUSR1):
        self.at, self.number = at, number

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.at:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def build(tmp_path):
    """Runs of three epochs of two iterations."""

    def build(name, accumulation=1, **changes):
        return RUNNERS.build(config(tmp_path / name, 'none', 4, accumulation, **changes))

    return build


@pytest.fixture
def handlers():
    """Handlers of before the test, put back after it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('number', [signal.SIGUSR1, signal.SIGTERM])
def test_saves_inside_an_epoch_and_stops(build, tmp_path, handlers, number):
    runner = build('run')
    runner.register_hook(Signal(3, number))
    with pytest.raises(RunStopped) as stopped:
        runner.train()
    assert stopped.value.code == 75
    assert runner.iter == 2  # the third
    places = {file.name: read_checkpoint(file)['meta'] for file in (tmp_path / 'run').glob('*.pth')}
    places = {name: (meta['epoch'], meta['iter']) for name, meta in places.items()}
    assert places == {'epoch_1.pth': (1, 2), 'epoch_1_iter_3.pth': (1, 3)}
    assert (tmp_path / 'run/last_checkpoint').read_text() == str(tmp_path / 'run/epoch_1_iter_3.pth')
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


@pytest.mark.parametrize('moments', [(1,), (2,), (3,), (1, 3, 4), (5, 6)])
def test_what_was_stopped_goes_on_as_if_it_had_not_been(build, tmp_path, handlers, moments):
    build('whole').train()
    for number, moment in enumerate(moments):
        runner = build('cut', auto_resume=True, experiment_name=f'cut {number}')
        runner.register_hook(Signal(moment))
        with pytest.raises(RunStopped):
            runner.train()
        epoch = (moment - 1) // 2
        assert names(tmp_path / 'cut')[-1] == f'epoch_{epoch}_iter_{moment}.pth'
        assert len(names(tmp_path / 'cut')) == epoch + 1  # and not those of earlier stops
    (tmp_path / 'cut').rename(tmp_path / 'moved')
    build('moved', auto_resume=True, experiment_name='cut again').train()
    assert names(tmp_path / 'moved') == names(tmp_path / 'whole') == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']
    whole, cut = (read_checkpoint(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'moved'))
    for key in ('state_dict', 'ema_state_dict'):
        assert all(value.equal(cut[key][name]) for name, value in whole[key].items())


def test_waits_for_the_update(build, tmp_path, handlers):
    """With gradients of one iteration summed up, nothing may be saved."""
    runner = build('run', accumulation=2)
    runner.register_hook(Signal(3))
    with pytest.raises(RunStopped):
        runner.train()
    assert runner.iter == 3
    assert read_checkpoint(tmp_path / 'run/epoch_1_iter_4.pth')['meta']['iter'] == 4


@pytest.mark.parametrize(('moment', 'stopped'), [(3, [2, 3]), (4, [2, 4]), (5, [2, 4, 5])])
def test_counts_iterations_where_the_checkpoint_hook_does(build, tmp_path, handlers, moment, stopped):
    """One that was due anyway is kept, and one that was not takes the place of none that is."""
    hooks = dict(checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2))
    settings = dict(
        default_hooks=hooks | dict(stop=dict(type='StopOnSignalHook')),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=6),
        param_scheduler=None,
    )
    runner = build('run', **settings)
    runner.register_hook(Signal(moment))
    with pytest.raises(RunStopped):
        runner.train()
    assert names(tmp_path / 'run') == [f'iter_{n}.pth' for n in stopped]
    build('run', auto_resume=True, experiment_name='run again', **settings).train()
    assert names(tmp_path / 'run') == ['iter_4.pth', 'iter_6.pth']


def test_a_run_that_ends_listens_no_more(build, handlers):
    runner = build('run')
    runner.train()
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_without_a_checkpoint_hook_it_says_so(build, handlers, tmp_path):
    runner = build('run', default_hooks=dict(checkpoint=None, stop=dict(type='StopOnSignalHook')))
    runner.register_hook(Signal(1))
    with pytest.raises(RunStopped):
        runner.train()
    assert list((tmp_path / 'run').glob('*.pth')) == []
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'the config has no checkpoint hook, so nothing is saved' in log.read_text()


def test_a_second_signal_does_what_it_did_before(handlers):
    heard = []
    signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    hook = StopOnSignalHook()
    hook.before_train(None)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (hook.received, heard) == ('SIGUSR1', [])
    os.kill(os.getpid(), signal.SIGUSR1)
    assert heard == [signal.SIGUSR1]


def test_a_data_worker_does_not_stop(handlers):
    hook = StopOnSignalHook()
    hook.before_train(None)
    hook._process = -1  # as in a process forked from the one that trains
    os.kill(os.getpid(), signal.SIGUSR1)
    assert hook.received is None


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(signals=['USR1']), "must be names such as 'SIGUSR1' and 'SIGTERM'"),
        (dict(signals='SIGUSR1'), "must be names such as 'SIGUSR1' and 'SIGTERM'"),
        (dict(interval=0), 'interval=0 is not a positive integer'),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        StopOnSignalHook(**arguments)
