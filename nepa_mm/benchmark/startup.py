"""Seconds from a command line to its first word of use."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from nepa_mm.apis.configs import configs_folder

CONFIG = 'demo/nepa_d192l6-p8_1xb16-bf16-coslr-1000it_demo-scenes-64x64.py'
IMAGES = 16


class StartError(RuntimeError):
    """A command did not get as far as it should have; the message holds its last words."""


def help_text() -> float:
    """Seconds that ``tools/train.py --help`` takes."""
    start = time.perf_counter()
    _check(subprocess.run(_train('--help'), capture_output=True, text=True), 'usage:')
    return time.perf_counter() - start


def first_step() -> float:
    """Seconds from the start of ``tools/train.py`` with the demo's pretraining to the log line of its first step."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_images(Path(folder) / 'data')
        command = _train(
            str(configs_folder() / CONFIG),
            '--work-dir',
            folder,
            '--cfg-options',
            'train_cfg.max_iters=1',
            'default_hooks.logger.interval=1',
            f'train_dataloader.dataset.data_root={data}',
        )
        start, words = time.perf_counter(), ''
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            seconds = None
            for line in process.stdout:
                words += line
                if 'Iter(train)' in line and seconds is None:
                    seconds = time.perf_counter() - start
        if seconds is None:
            raise StartError(f'tools/train.py ended before its first step:\n{words[-2000:]}')
        return seconds


def write_images(folder: Path) -> Path:
    """Images for the demo's pretraining.

    Args:
        folder (Path): Where to; the images come into ``images/training``.

    Returns:
        Path: ``folder``.
    """
    target = folder / 'images' / 'training'
    target.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(IMAGES):
        cv2.imwrite(str(target / f'{i:02d}.png'), generator.integers(0, 256, (128, 128, 3), np.uint8))
    return folder


def _train(*arguments: str) -> list[str]:
    return [sys.executable, str(configs_folder().parent / 'tools' / 'train.py'), *arguments]


def _check(done: subprocess.CompletedProcess, expected: str) -> None:
    if done.returncode or expected not in done.stdout:
        raise StartError(f'{" ".join(done.args)} ended with {done.returncode}:\n{done.stderr[-2000:]}')
