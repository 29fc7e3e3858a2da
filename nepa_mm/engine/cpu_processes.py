"""The process group of a run whose processes have no GPU."""

from __future__ import annotations

import datetime
import os
import subprocess

import torch


def init_cpu_process_group(launcher: str, backend: str = 'gloo', timeout: int | None = None) -> None:
    """Join the process group of a run whose processes have no GPU.

    mmengine's ``init_dist`` picks a CUDA device first and so cannot start such a run.

    Args:
        launcher (str): ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'``.
        backend (str): Backend of torch.distributed. Defaults to ``'gloo'``.
        timeout (int, optional): Seconds that a collective call may take. Defaults to torch's own.

    Raises:
        ValueError: If the launcher is unknown.
        RuntimeError: If the environment does not hold what the launcher should have set.
    """
    source = {
        'pytorch': dict(RANK='RANK', WORLD_SIZE='WORLD_SIZE', LOCAL_RANK='LOCAL_RANK'),
        'slurm': dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID'),
        'mpi': dict(
            RANK='OMPI_COMM_WORLD_RANK',
            WORLD_SIZE='OMPI_COMM_WORLD_SIZE',
            LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK',
        ),
    }
    if launcher not in source:
        raise ValueError(f"launcher must be 'pytorch', 'slurm' or 'mpi', but got {launcher!r}.")
    absent = [name for name in source[launcher].values() if name not in os.environ]
    if absent:
        raise RuntimeError(
            f'launcher={launcher!r} expects the environment variables {absent}; start the run with '
            'tools/dist_train.sh or tools/slurm_train.sh, or use --launcher none for one process.'
        )
    os.environ.update({target: os.environ[name] for target, name in source[launcher].items()})
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_host(launcher)
    limit = None if timeout is None else datetime.timedelta(seconds=timeout)
    torch.distributed.init_process_group(backend=backend, timeout=limit)


def _first_host(launcher: str) -> str:
    """Address of the first host of the job; only slurm can tell it."""
    hosts = os.environ.get('SLURM_NODELIST')
    if launcher == 'slurm' and hosts:
        try:
            answer = subprocess.run(['scontrol', 'show', 'hostname', hosts], capture_output=True, text=True, check=True)
            return answer.stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            pass
    raise RuntimeError(f'cannot tell the first host of this {launcher} run: set MASTER_ADDR to its address.')
