"""What the tools' command lines share: configs by name, options, the runner, and the end of a distributed run."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import nepa_mm.engine  # noqa: F401  registers NEPARunner, also for configs without custom_imports

from .configs import ConfigNotFoundError, find_config


class UsageError(Exception):
    """A mistake in the command line or in what it names; the tools print it without a traceback."""


def load_config(path: str, configs: str | Path) -> Config:
    """Read a config file.

    Args:
        path (str): The file, or its name without folder and ``.py`` where it is one of ``configs``.
        configs (str or Path): Folder whose configs have names and are proposed when ``path`` does not exist.

    Returns:
        Config: The config.

    Raises:
        UsageError: If there is no such file.
    """
    try:
        return Config.fromfile(find_config(path, configs))
    except ConfigNotFoundError as error:
        raise UsageError(str(error)) from error


def parse_options(tokens: Sequence[str] | None) -> dict[str, Any]:
    """Turn the ``key=value`` words of ``--cfg-options`` into a dict, by mmengine's rules."""
    if not tokens:
        return {}
    for token in tokens:
        if '=' not in token:
            raise UsageError(f'--cfg-options takes key=value, but got {token!r}')
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *tokens]).cfg_options


def check_device(device: str | None) -> None:
    """Refuse a ``--device`` that torch cannot use here.

    Args:
        device (str, optional): As torch names it; None, where the tool chooses one, is fine.

    Raises:
        UsageError: There is no such device.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        why = str(error).splitlines()[0]
        raise UsageError(f'--device {device!r} cannot be used here ({why}); leave it away or name another') from error


def print_any_name() -> None:
    """Have ``print`` show names of files that are not UTF-8 with escapes; it would end the process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')


def build_runner(cfg: Config) -> Runner:
    """Build the runner that a config names, by default :class:`nepa_mm.engine.NEPARunner`.

    Args:
        cfg (Config): From :func:`train_config` or :func:`test_config`.

    Returns:
        Runner: The runner.
    """
    cfg.setdefault('runner_type', 'NEPARunner')
    return RUNNERS.build(cfg)


def close_process_group() -> None:
    """Leave the process group of a finished distributed run.

    Gloo's threads abort a process that exits while they run ("terminate called without an active exception"), now and
    then and after all work is done, and torchrun then reports a failure.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()  # nobody leaves while another still talks to it
        torch.distributed.destroy_process_group()
