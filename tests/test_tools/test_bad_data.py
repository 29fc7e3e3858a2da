"""tools/train.py on a data set of which a fifth is damaged, as the issue asks: it ends and reports exactly those."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.damaged import DAMAGE, UNUSUAL, encode, files, picture

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
custom_imports = dict(imports=['nepa_mm'], allow_failed_imports=False)
default_scope = 'mmpretrain'
arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=32)
model = dict(
    type='NEPA',
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
    backbone=dict(type='NEPAViT', arch=arch, patch_size=8),
)
train_dataloader = dict(
    batch_size=BATCH,
    num_workers=2,
    persistent_workers=PERSISTENT,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root='images',
        with_label=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=16, backend='cv2'),
            dict(type='PackInputs'),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
train_cfg = dict(by_epoch=True, max_epochs=1)
auto_scale_lr = dict(base_batch_size=40)
randomness = dict(seed=0)
default_hooks = dict(
    bad_data=dict(type='BadDataHook', max_bad_share=0.25, interval=10),
    logger=dict(type='LoggerHook', interval=10),
)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """1,000 images, of which 200 are damaged, 160 unusual and the others plain."""
    path = tmp_path_factory.mktemp('bad_data')
    for sub, kinds, count in (('damaged', DAMAGE, 200), ('unusual', UNUSUAL, 160)):
        (path / 'images' / sub).mkdir(parents=True)
        for name, data in files(kinds, count):
            (path / 'images' / sub / name).write_bytes(data)
    plain = [encode(picture(seed)) for seed in range(10)]
    (path / 'images/plain').mkdir()
    for i in range(640):
        (path / f'images/plain/{i}.jpg').write_bytes(plain[i % 10])
    return path


def config(folder: Path, batch: int = 40, persistent: bool = True) -> None:
    text = CONFIG.replace('BATCH', str(batch)).replace('PERSISTENT', str(persistent))
    (folder / 'config.py').write_text(text)


def train(folder: Path, work_dir: str, *args: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Run tools/train.py in the folder."""
    command = [sys.executable, *launcher, str(ROOT / 'tools/train.py'), 'config.py', '--work-dir', work_dir, *args]
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def expected(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / 'images/damaged').iterdir())


def listed(folder: Path, work_dir: str) -> list[str]:
    lines = (folder / work_dir / 'bad_images.txt').read_text().splitlines()
    assert all(len(line.split('\t')) == 2 and line.split('\t')[1] for line in lines)
    return [line.split('\t')[0] for line in lines]


REPORT = 'Bad images: 200 of 1,000 training images cannot be read (20.00%); others took their place'


def test_200_damaged_of_1000(folder):
    config(folder)
    done = train(folder, 'run')
    assert done.returncode == 0, done.stderr[-3000:]
    assert listed(folder, 'run') == expected(folder)
    assert done.stdout.count(REPORT + '; the list is in') + done.stderr.count(REPORT + '; the list is in') == 1


@pytest.mark.slow
def test_a_resumed_run_counts_no_file_twice(folder):
    config(folder)
    for epochs in (1, 2):  # the second meets the same files again
        done = train(folder, 'resumed', '--resume', '--cfg-options', f'train_cfg.max_epochs={epochs}')
        assert done.returncode == 0, done.stderr[-3000:]
        assert REPORT + '; the list is in' in done.stdout + done.stderr
        assert listed(folder, 'resumed') == expected(folder)


@pytest.mark.slow
def test_too_many_stop_the_run(folder):
    config(folder)
    done = train(folder, 'stopped', '--cfg-options', 'default_hooks.bad_data.max_bad_share=0.01')
    assert done.returncode == 1
    last = done.stderr[done.stderr.rindex('train.py: ') :]
    assert last.startswith('train.py: 11 of 1,000 training images cannot be read, more than')
    assert 'default_hooks.bad_data.max_bad_share=0.01 allows' in last and last.count('images/damaged/') == 10
    assert 'Traceback' not in last


@pytest.mark.slow
@pytest.mark.parametrize('persistent', [True, False])
def test_two_processes_count_each_file_once(folder, persistent):
    config(folder, batch=20, persistent=persistent)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    launcher = ('-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={port}')
    options = ('--launcher', 'pytorch', '--cfg-options', 'train_cfg.max_epochs=2')
    done = train(folder, f'two_{persistent}', *options, launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    assert listed(folder, f'two_{persistent}') == expected(folder)
    assert (done.stdout + done.stderr).count(REPORT + '; the list is in') == 1
