"""Runs that are stopped, killed and restarted as clusters do it, here with stand-ins for Slurm's programs."""

import signal
import subprocess
import time

import pytest

from tests.test_tools.test_train_test import PRETRAIN, TOOLS, Site, assert_same, free_port

# What happens in the middle of a run, once: the marker file stays for the restart.
INTERRUPTIONS = """
import os
import signal
import time
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class KillOnce(Hook):
    '''The last process dies without a word.'''

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        marker = Path(runner.work_dir) / 'killed'
        if runner.iter == 2 and get_rank() == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module(force=True)
class WaitForSignalOnce(Hook):
    '''Tells that it is in the middle of the run, and waits there to be told to stop.'''

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        marker = Path(runner.work_dir) / 'waiting'
        if runner.iter != 2 or marker.exists():
            return
        marker.touch()
        stop = next(hook for hook in runner.hooks if type(hook).__name__ == 'StopOnSignalHook')
        deadline = time.monotonic() + 600
        while stop.received is None and time.monotonic() < deadline:
            time.sleep(0.05)
"""

# Three epochs of two iterations; checkpoints between epochs.
INTERRUPTED = (
    PRETRAIN
    + """
custom_imports['imports'].append('interruptions')
default_hooks.update(checkpoint=dict(type='SafeCheckpointHook', interval=1), stop=dict(type='StopOnSignalHook'))
custom_hooks = [
    dict(type='EMAHook', ema_type='ForeachEMA', momentum=0.1),
    dict(type='KillOnce'),
    dict(type='WaitForSignalOnce'),
]
"""
)

# Runs the script as Slurm would on the first node of the job.
SBATCH = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$SBATCH_RECORD"
while [ "${1:0:1}" = - ]; do shift; done
export SLURM_JOB_ID=4711
exec bash "$@"
"""
# One task; a signal is passed on to it.
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$SRUN_RECORD"
while [ "${1:0:1}" = - ]; do shift; done
export SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NODELIST='node[1-2]'
"$@" &
TASK=$!
trap 'kill -USR1 "$TASK"' USR1
while :; do
    wait "$TASK" && STATUS=0 || STATUS=$?
    kill -0 "$TASK" 2>/dev/null || exit "$STATUS"
done
"""
SCONTROL = """#!/bin/sh
[ "$1" = show ] && echo 127.0.0.1 || echo "$@" > "$SCONTROL_RECORD"
"""


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp('clusters'))
    (site.folder / 'interruptions.py').write_text(INTERRUPTIONS)
    (site.folder / 'run.py').write_text(INTERRUPTED)
    for name, text in dict(sbatch=SBATCH, srun=SRUN, scontrol=SCONTROL).items():
        (site.folder / 'bin' / name).write_text(text)
        (site.folder / 'bin' / name).chmod(0o755)
    for name in ('sbatch', 'srun', 'scontrol'):
        site.env[f'{name.upper()}_RECORD'] = str(site.folder / f'{name}_record')
    for name in ('RUN_STARTED', 'NEPA_MM_TOOLS'):
        site.env.pop(name, None)
    return site


@pytest.fixture(scope='module')
def unbroken(site):
    """Work directory of a run of one process that nothing happens to."""
    (site.folder / 'unbroken').mkdir()
    (site.folder / 'unbroken/waiting').touch()
    site.run('python', TOOLS / 'train.py', 'run.py', '--work-dir', 'unbroken')
    return site.folder / 'unbroken'


def wait_for(path, process):
    deadline = time.monotonic() + 6000
    while not path.exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline, f'{path} never came'
        time.sleep(0.05)


# ---------------------------------------------------------------- Slurm


def test_a_batch_job_saves_goes_back_into_the_queue_and_resumes(site, unbroken):
    words = [TOOLS / 'slurm_requeue.sh', 'gpu-queue', 'my job', 'run.py', '--work-dir', 'requeued']
    environment = dict(SBATCH_ARGS='--time=1-00:00:00', GPUS='4', GPUS_PER_NODE='2')
    job = site.start(*words, **environment)
    wait_for(site.folder / 'requeued/waiting', job)
    job.send_signal(signal.SIGUSR1)  # to the batch script alone, as --signal=B:USR1@120 does
    (log,) = site.finish(job)
    assert 'Stopping after iteration 3, because of SIGUSR1.' in log
    assert 'stopped with status 75; job 4711 goes back into the queue' in log
    assert (site.folder / 'scontrol_record').read_text() == 'requeue 4711\n'
    assert (site.folder / 'requeued/last_checkpoint').read_text().endswith('requeued/epoch_1_iter_3.pth')

    asked = (site.folder / 'sbatch_record').read_text().splitlines()
    assert asked[:9] == [
        '--partition=gpu-queue',
        '--job-name=my job',
        '--gres=gpu:2',
        '--ntasks=4',
        '--ntasks-per-node=2',
        '--cpus-per-task=5',
        '--requeue',
        '--open-mode=append',
        '--signal=B:USR1@120',
    ]
    assert asked[9:] == ['--time=1-00:00:00', str(TOOLS / 'slurm_requeue.sh'), 'run.py', '--work-dir', 'requeued']
    task = (site.folder / 'srun_record').read_text().splitlines()
    assert task[:4] == ['--kill-on-bad-exit=1', '--cpus-per-task=5', 'python', '-u']
    assert task[5:] == ['run.py', '--launcher', 'slurm', '--resume', '--work-dir', 'requeued']

    (site.folder / 'scontrol_record').unlink()
    log = site.run(*words, **environment)  # as Slurm starts it again
    assert 'resumed epoch: 1, iter: 3' in log
    assert not (site.folder / 'scontrol_record').exists()  # a run that is over is not queued
    assert_same(site.folder / 'requeued/epoch_3.pth', unbroken / 'epoch_3.pth', 0)
    assert not (site.folder / 'requeued/epoch_1_iter_3.pth').exists()


def test_a_broken_run_is_not_queued(site):
    job = site.start(TOOLS / 'slurm_requeue.sh', 'queue', 'name', 'run.py', '--cfg-options', 'model.type=Absent')
    text = job.communicate(timeout=600)[0]
    assert job.returncode == 1
    assert 'Absent' in text
    assert not (site.folder / 'scontrol_record').exists()


def test_the_script_says_what_is_missing(site):
    result = subprocess.run([TOOLS / 'slurm_requeue.sh', 'queue'], env=site.env, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith('usage: ')


# ---------------------------------------------------------------- torchrun


def test_a_killed_process_is_restarted_from_the_last_checkpoint(site, unbroken):
    """One of two is killed in epoch 2; both start again, by themselves, from the end of epoch 1."""
    log = site.run(
        *(TOOLS / 'dist_train.sh', 'run.py', 2, '--work-dir', 'elastic'),
        *('--cfg-options', 'train_dataloader.batch_size=2', 'custom_hooks.2.type=IterTimerHook'),
        MAX_RESTARTS='1',
    )
    assert (site.folder / 'elastic/killed').exists()
    assert f'Restart 1 by torchrun: resuming from the last checkpoint of {site.folder / "elastic"}.' in log
    assert 'resumed epoch: 1, iter: 2' in log
    assert_same(site.folder / 'elastic/epoch_3.pth', unbroken / 'epoch_3.pth', 1e-6)


def test_two_nodes_restart_together(site, unbroken):
    """Two torchrun agents, one of whose processes is killed."""
    words = [TOOLS / 'dist_train.sh', 'run.py', 1, '--work-dir', 'nodes', '--cfg-options']
    words += ['train_dataloader.batch_size=2', 'custom_hooks.2.type=IterTimerHook']
    environment = dict(NNODES='2', PORT=free_port(), MASTER_ADDR='127.0.0.1', MAX_RESTARTS='2')
    log = ''.join(site.finish(*(site.start(*words, **environment) for _ in range(2))))
    assert (site.folder / 'nodes/killed').exists()
    assert 'resumed epoch: 1, iter: 2' in log
    assert_same(site.folder / 'nodes/epoch_3.pth', unbroken / 'epoch_3.pth', 1e-6)


@pytest.mark.parametrize('workers', [0, 1])
def test_all_processes_stop_at_the_same_update(site, unbroken, workers):
    """Torchrun passes SIGTERM on to its processes and to their workers, at no common iteration; they agree on one."""
    folder = site.folder / f'stopped_{workers}'
    words = [TOOLS / 'dist_train.sh', 'run.py', 2, '--work-dir', folder.name, '--cfg-options']
    words += ['train_dataloader.batch_size=2', 'default_hooks.stop.interval=2']
    words += [f'train_dataloader.num_workers={workers}']
    folder.mkdir()
    (folder / 'killed').touch()
    run = site.start(*words)
    wait_for(folder / 'waiting', run)
    run.send_signal(signal.SIGTERM)
    text = run.communicate(timeout=600)[0]
    assert run.returncode == 1  # torchrun's own, whatever its processes end with
    assert 'Stopping after iteration 4, because of ' in text
    log = site.run(*words[:5], '--resume', *words[5:])
    assert 'resumed epoch: 1, iter: 4' in log
    assert_same(folder / 'epoch_3.pth', unbroken / 'epoch_3.pth', 1e-6)
