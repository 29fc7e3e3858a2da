"""tools/train.py, killed by SIGKILL at random moments and resumed: it ends as if nobody had touched it."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.killed_runs import assert_same_end

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'
MAX_ITERS = 60

# Imported by the config. A write that takes a while, so that it can be hit.
SLOW_WRITES = """
import os
import time

if os.environ.get('SLOW_WRITES'):
    fsync = os.fsync

    def slow_fsync(handle):
        fsync(handle)
        time.sleep(0.3)

    os.fsync = slow_fsync
"""

# What a real run has that could differ: workers, augmentation with all three generators, drop path, random rescale of
# positions, an average, accumulation that does not divide an epoch, schedules.
CONFIG = """
custom_imports = dict(imports=['nepa_mm', 'slow_writes'], allow_failed_imports=False)
default_scope = 'mmpretrain'
backbone = dict(
    type='NEPAViT',
    arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
    patch_size=8,
    layer_scale_init=0.1,
    drop_path_rate=0.2,
)
model = dict(type='NEPA', backbone=backbone)
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type=SAMPLER, shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root='images',
        with_label=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=32),
            dict(type='RandomFlip', prob=0.5),
            dict(type='ColorJitter', brightness=0.4, contrast=0.4),
            dict(type='PackInputs'),
        ],
    ),
)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3), accumulative_counts=ACCUMULATION, clip_grad=dict(max_norm=1.0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=10),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=10, end=60),
]
train_cfg = dict(TRAIN)
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type='SafeCheckpointHook', max_keep_ckpts=2, CHECKPOINT),
)
randomness = dict(seed=1, diff_rank_seed=True)
"""
BOTH = 'for r in 0 1; do RANK=$r LOCAL_RANK=$r "$@" & pids="$pids $!"; done; for p in $pids; do wait $p || exit 1; done'
ITERATIONS = dict(
    SAMPLER="'InfiniteSampler'",
    ACCUMULATION='3',
    TRAIN=f"type='IterBasedTrainLoop', max_iters={MAX_ITERS}",
    CHECKPOINT='by_epoch=False, interval=4',
)
EPOCHS = dict(  # 22 images in batches of 4: 6 iterations, the last of half a batch
    SAMPLER="'DefaultSampler'",
    ACCUMULATION='4',
    TRAIN=f"type='EpochBasedTrainLoop', max_epochs={MAX_ITERS // 6}",
    CHECKPOINT='by_epoch=True, interval=1',
)
INSIDE_EPOCHS = EPOCHS | dict(CHECKPOINT='by_epoch=False, interval=4')
# Two processes share the images: 3 iterations an epoch.
TWO = EPOCHS | dict(TRAIN=f"type='EpochBasedTrainLoop', max_epochs={MAX_ITERS // 3}")


@pytest.fixture
def site(tmp_path):
    """A folder with images, in which runs are started by :func:`start`."""
    rng = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    for i in range(22):
        noise = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / 'images' / f'{i}.png'), cv2.resize(noise, (48, 40), interpolation=cv2.INTER_CUBIC))
    (tmp_path / 'slow_writes.py').write_text(SLOW_WRITES)
    return tmp_path


def write_config(site, settings):
    text = CONFIG
    for name, value in settings.items():
        text = text.replace(name, value)
    (site / 'config.py').write_text(text)


def start(site, work_dir, processes=1, **env):
    """Start tools/train.py in a session of its own, its output in a pipe."""
    train = [str(TOOLS / 'train.py'), 'config.py', '--work-dir', work_dir, '--resume']
    words = [sys.executable, *train]
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(('localhost', 0))
            port = probe.getsockname()[1]
        env |= dict(MASTER_ADDR='localhost', MASTER_PORT=str(port), WORLD_SIZE=str(processes))
        # Not torchrun, which gives each process a session of its own, out of reach of one signal to all.
        words = ['bash', '-c', BOTH, 'bash', *words, '--launcher', 'pytorch']
    env = os.environ | dict(PYTHONPATH=str(site), OMP_NUM_THREADS='1', NO_COLOR='1') | env
    return subprocess.Popen(
        words, cwd=site, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(site, work_dir, processes=1):
    process = start(site, work_dir, processes)
    log = process.communicate(timeout=280)[0]
    assert process.returncode == 0, log
    return log


def kill(process, iteration, condition):
    """Wait for an iteration's log line, then for a condition, then kill every process; the log."""
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout))
    reader.start()
    while (
        max(map(int, re.findall(r'Iter\(train\) \[\s*(\d+)/', ''.join(lines))), default=0) < iteration
        or not condition()
    ):
        assert process.poll() is None, 'the run ended before it could be killed:\n' + ''.join(lines)
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reader.join()
    return ''.join(lines)


def kill_and_resume(site, moments, writes, processes=1):
    """Kill a run at these iterations and in these writes (by the number of the start), then let it end."""
    generator = random.Random(time.time_ns())
    for number, moment in enumerate(moments):
        slow = dict(SLOW_WRITES='1') if number in writes else {}
        process = start(site, 'killed', processes, **slow)
        if number in writes:
            log = kill(process, moment, lambda: list((site / 'killed').glob('*.writing')))
            assert list((site / 'killed').glob('*.writing'))
        else:
            log = kill(process, moment, lambda: time.sleep(generator.uniform(0, 0.1)) is None)
        print('killed after', moment, *re.findall(r'resumed epoch.*', log))
    log = finish(site, 'killed', processes)
    assert 'resumed epoch: ' in log
    assert not list((site / 'killed').glob('*.writing'))
    finish(site, 'unbroken', processes)
    assert_same_end(site / 'killed', site / 'unbroken')


def ascending(number):
    """Random iterations, in order, so that each start has some way to go."""
    return sorted(random.Random(time.time_ns()).sample(range(1, MAX_ITERS - 12), number))


@pytest.mark.slow
def test_killed_at_ten_random_moments(site):
    write_config(site, ITERATIONS)
    kill_and_resume(site, ascending(10), writes=(2, 6))


@pytest.mark.slow
@pytest.mark.parametrize('settings', [EPOCHS, INSIDE_EPOCHS])
def test_killed_in_epochs(site, settings):
    write_config(site, settings)
    kill_and_resume(site, ascending(4), writes=(1, 2))


@pytest.mark.slow
def test_two_processes_killed(site):
    write_config(site, TWO)
    kill_and_resume(site, ascending(3), writes=(1,), processes=2)
