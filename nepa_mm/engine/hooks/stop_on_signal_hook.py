"""A run that saves and ends when its machine is about to be taken away."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .checkpoint_hook import SafeCheckpointHook, _accumulating

# "Temporary failure, try again later" of sysexits.h: neither a finished run nor a broken one.
STOPPED = 75


class RunStopped(SystemExit):
    """A run was asked to stop, and has saved where it was; its exit status is :data:`STOPPED`."""

    def __init__(self) -> None:
        super().__init__(STOPPED)


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Save a checkpoint and end the run, with exit status 75, after a signal.

    A cluster announces the end of a job: Slurm by the signal that ``--signal`` names, preemption and Kubernetes by
    SIGTERM. All processes must stop at the same iteration, while a signal reaches them at different ones, or only one
    of them; so they ask each other, every few updates: to do so at each would make the device wait for the host.

    The run's checkpoint hook saves, also in the middle of an epoch, and ``--resume`` goes on from there.
    :class:`SafeCheckpointHook` gives that file a name of its own and removes it when the next one is written;
    mmengine's hook names it after the epochs done, in place of the checkpoint of that name. A second signal of the same
    kind ends the process at once, as it would without this hook.

    Args:
        signals (Sequence[str]): Names of the signals. Defaults to ``('SIGUSR1', 'SIGTERM')``.
        interval (int): Updates between two questions among several processes; one alone looks after each update.
            Defaults to 10.

    Raises:
        ValueError: A signal is unknown, or the interval is no positive integer.
    """

    priority = 'LOWEST'  # after the average, the schedulers and the checkpoint hook: all have done this iteration

    def __init__(self, signals: Sequence[str] = ('SIGUSR1', 'SIGTERM'), interval: int = 10) -> None:
        unknown = [name for name in signals if not hasattr(signal, name) or not name.startswith('SIG')]
        if isinstance(signals, str) or unknown:
            raise ValueError(f"StopOnSignalHook: signals={signals!r} must be names such as 'SIGUSR1' and 'SIGTERM'.")
        if not isinstance(interval, int) or interval < 1:
            raise ValueError(f'StopOnSignalHook: interval={interval!r} is not a positive integer.')
        self.signals = [signal.Signals[name] for name in signals]
        self.interval = interval
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._process = -1
        self._updates = 0

    def before_train(self, runner: Runner) -> None:
        """Begin to listen.

        Args:
            runner (Runner): The runner.
        """
        self.received, self._updates, self._process = None, 0, os.getpid()
        if threading.current_thread() is not threading.main_thread():
            runner.logger.warning('StopOnSignalHook: training runs in a side thread, where no signal can be heard.')
            return
        self._before = {number: signal.signal(number, self._note) for number in self.signals}

    def after_train(self, runner: Runner) -> None:
        """Stop listening.

        Args:
            runner (Runner): The runner.
        """
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save and stop, if any process has been asked to.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used.
            data_batch: Not used.
            outputs: Not used.

        Raises:
            RunStopped: On all processes, after the checkpoint is written.
        """
        if _accumulating(runner):
            return
        self._updates += 1
        if runner.world_size > 1 and self._updates % self.interval:
            return
        asked = torch.tensor(int(self.received is not None))
        all_reduce(asked)
        if not asked:
            return
        done = runner.iter + 1
        who = self.received or 'a signal to another process'
        runner.logger.info(f'Stopping after iteration {done}, because of {who}.')
        hook = next((h for h in runner.hooks if isinstance(h, CheckpointHook)), None)
        if hook is None:
            runner.logger.warning('StopOnSignalHook: the config has no checkpoint hook, so nothing is saved.')
        else:
            if isinstance(hook, SafeCheckpointHook):
                hook.save_stopped(runner)
            else:
                step = runner.epoch if hook.by_epoch else done
                hook._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=done))
            runner.logger.info(f'Go on with --resume; exit status {STOPPED}.')
        self.after_train(runner)
        runner.visualizer.close()
        raise RunStopped

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; the next one does what it did before."""
        if os.getpid() != self._process:
            return  # a data worker, which has inherited this: Slurm signals a task's children too, and they are needed
        self.received = signal.Signals(number).name
        signal.signal(number, self._before.get(signal.Signals(number)) or signal.SIG_DFL)
