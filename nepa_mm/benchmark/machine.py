"""What a figure belongs to: processor, threads, versions, commit, day."""

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from nepa_mm.version import __version__


def describe_machine() -> dict[str, Any]:
    """Describe where and with what a measurement is made.

    Returns:
        dict[str, Any]: ``cpu``, ``cores`` (that this process may use), ``threads`` (of torch), ``gpu`` (None without),
        ``python``, ``torch``, ``nepa_mm``, ``commit`` (None outside a checkout; ends in '+' where files differ from it)
        and ``date``. No host name and no path.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return dict(
        cpu=_cpu(),
        cores=cores,
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        python=platform.python_version(),
        torch=torch.__version__,
        nepa_mm=__version__,
        commit=_commit(),
        date=datetime.date.today().isoformat(),
    )


def _cpu() -> str:
    """The processor's own name, as Linux knows it; otherwise what Python knows."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return None
    try:
        commit = _git(root, 'rev-parse', '--short', 'HEAD')
        return commit + ('+' if _git(root, 'status', '--porcelain', '--untracked-files=no') else '')
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(['git', '-C', root, *arguments], check=True, capture_output=True, text=True).stdout.strip()
