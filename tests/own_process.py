"""Runs a function in a process of its own, which it may kill."""

import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing import get_context

import torch

# Not forked from pytest, whose process has threads by now: a fork takes their locks with it, and waits for ever. The
# server has imported the slow modules once, and nothing else.
CONTEXT = get_context('forkserver')
CONTEXT.set_forkserver_preload(['tests.killed_runs'])


def run_in_own_process(function: Callable[..., int | None], *args: object) -> int:
    """Call a function in a new process, silently but for a traceback.

    Args:
        function (callable): Defined in a module, and so for its arguments: both are pickled. It gives the exit
            status, or None for 0.
        *args: Its arguments.

    Returns:
        int: The exit status; 1 after an error, minus the signal's number where one has ended the process.
    """
    process = CONTEXT.Process(target=_run, args=(function, args))
    process.start()
    try:
        process.join()
    finally:  # a time limit
        process.kill()
    return process.exitcode


def _run(function: Callable[..., int | None], args: tuple) -> None:
    sys.stdout = sys.stderr = open(os.devnull, 'w')  # noqa: SIM115
    torch.set_num_threads(1)  # as conftest.py: a sum's last bits depend on it
    try:
        code = function(*args)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        code = 1
    os._exit(code or 0)
