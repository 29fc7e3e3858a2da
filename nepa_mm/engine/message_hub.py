"""A message hub that neither waits for the device at every iteration nor slows down over a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from torch import Tensor


class GrowingHistory(HistoryBuffer):
    """mmengine's history of a scalar, with room to grow.

    Its own copies the whole history to add one value: at iteration 500,000 that is four megabytes, twice, for each
    scalar of each iteration. A copy (``copy.deepcopy``) is mmengine's own class: what a checkpoint holds.

    Args:
        log_history (Sequence): Values so far. Defaults to none.
        count_history (Sequence): How many each of them stands for. Defaults to none.
        max_length (int): How many are kept. Defaults to 1,000,000.
    """

    _logs: np.ndarray
    _counts: np.ndarray

    def __init__(self, log_history: Sequence = (), count_history: Sequence = (), max_length: int = 1_000_000) -> None:
        super().__init__(log_history, count_history, max_length)
        self._filled = len(self._logs)

    def update(self, log_val: int | float, count: int = 1) -> None:
        """Add a value.

        Args:
            log_val (int or float): The value.
            count (int): How many it stands for. Defaults to 1.

        Raises:
            TypeError: Either is no number.
        """
        if not isinstance(log_val, (int, float)) or not isinstance(count, (int, float)):
            raise TypeError(
                f'a history takes numbers, but got {type(log_val).__name__} and count {type(count).__name__}'
            )
        if self._filled == len(self._logs):
            self._grow()
        if isinstance(log_val, float) and self._logs.dtype.kind != 'f':
            self._logs = self._logs.astype(np.float64)
        self._logs[self._filled] = log_val
        self._counts[self._filled] = count
        self._filled += 1

    def _grow(self) -> None:
        kept = self._kept()
        room = max(64, kept.stop - kept.start)
        self._logs, self._counts = (np.pad(values[kept], (0, room)) for values in (self._logs, self._counts))
        self._filled = kept.stop - kept.start

    def _kept(self) -> slice:
        return slice(max(0, self._filled - self.max_length), self._filled)

    # The names under which the base class reads its arrays.
    @property
    def _log_history(self) -> np.ndarray:
        return self._logs[self._kept()]

    @_log_history.setter
    def _log_history(self, values: np.ndarray) -> None:
        self._logs = values

    @property
    def _count_history(self) -> np.ndarray:
        return self._counts[self._kept()]

    @_count_history.setter
    def _count_history(self, values: np.ndarray) -> None:
        self._counts = values

    def __deepcopy__(self, memo: dict) -> HistoryBuffer:
        values, counts = self.data
        return HistoryBuffer(values, counts, self.max_length)


class DeferredMessageHub(MessageHub):
    """mmengine's message hub, which keeps scalars on their device until somebody reads them.

    mmengine turns every loss, and every gradient norm, into a Python number as soon as it is there, and so waits at
    every iteration until the device has done all that was asked of it. Here a tensor waits its turn: all of them are
    read in one transfer when any is asked for, which is when a log line or a checkpoint is written, or when
    ``MOST_WAITING`` have come together.

    The current hub of models and hooks, ``MessageHub.get_current_instance()``, is whichever was made last, ours
    included. Arguments are those of :class:`mmengine.logging.MessageHub`.
    """

    MOST_WAITING = 4096

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self._waiting: list[tuple[str, Tensor, int]] = []
        self._waiting_keys: set[str] = set()
        self._to_growing()

    def update_scalar(self, key: str, value: Any, count: int = 1, resumed: bool = True) -> None:
        """Add a value to the history of a scalar.

        Args:
            key (str): Its name.
            value (Tensor or np.ndarray or int or float): One number. A tensor's value is that of now: what happens to
                it later does not change the history.
            count (int): How many values it stands for. Defaults to 1.
            resumed (bool): Whether a checkpoint keeps the history. Defaults to True.

        Raises:
            TypeError: ``count`` is no int.
        """
        if not isinstance(count, int):
            raise TypeError(f'count of {key!r} must be an int, but got {type(count).__name__}')
        self._set_resumed_keys(key, resumed)
        if type(value) is Tensor and value.numel() == 1:  # what a subclass holds may lie in several processes
            self._waiting.append((key, value.detach().clone(), count))
            self._waiting_keys.add(key)
            if len(self._waiting) >= self.MOST_WAITING:
                self.settle()
            return
        if key in self._waiting_keys:
            self.settle()
        self._add(key, self._get_valid_value(value), count)

    def settle(self) -> None:
        """Read all tensors that wait, in one transfer per device and dtype."""
        waiting, self._waiting = self._waiting, []
        self._waiting_keys.clear()
        places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, (_, value, _) in enumerate(waiting):
            places.setdefault((value.device, value.dtype), []).append(i)
        numbers: list[int | float] = [0] * len(waiting)
        for indices in places.values():
            together = torch.stack([waiting[i][1].reshape(()) for i in indices])
            for i, number in zip(indices, together.tolist(), strict=True):
                numbers[i] = number
        for (key, _, count), number in zip(waiting, numbers, strict=True):
            self._add(key, number, count)

    def _add(self, key: str, value: int | float, count: int) -> None:
        if key not in self._log_scalars:
            self._log_scalars[key] = GrowingHistory([value], [count])
        else:
            self._log_scalars[key].update(value, count)

    @property
    def log_scalars(self) -> dict[str, HistoryBuffer]:
        """All histories, up to date."""
        self.settle()
        return self._log_scalars

    def get_scalar(self, key: str) -> HistoryBuffer:
        """The history of a scalar, up to date; the others are left waiting.

        Args:
            key (str): Its name.

        Returns:
            HistoryBuffer: The history.

        Raises:
            KeyError: There is none.
        """
        if key in self._waiting_keys:
            self.settle()
        if key not in self._log_scalars:
            raise KeyError(
                f'message hub {self.instance_name!r} has no scalar {key!r}; it has {list(self._log_scalars)}'
            )
        return self._log_scalars[key]

    def state_dict(self) -> dict:
        """What a checkpoint keeps, in mmengine's classes."""
        self.settle()
        return super().state_dict()

    def load_state_dict(self, state_dict: MessageHub | dict) -> None:
        """Go on from the histories of another hub.

        Args:
            state_dict (MessageHub or dict): What :meth:`state_dict` of this class or of mmengine's has given.
        """
        self.settle()
        super().load_state_dict(state_dict)
        self._to_growing()

    def _to_growing(self) -> None:
        for key, history in self._log_scalars.items():
            if not isinstance(history, GrowingHistory):
                self._log_scalars[key] = _growing(history)


def _growing(history: HistoryBuffer) -> GrowingHistory:
    values, counts = history.data
    return GrowingHistory(values, counts, history.max_length)


# One table: mmengine's models, hooks and optimizer wrappers ask `MessageHub` for the current hub.
DeferredMessageHub._instance_dict = MessageHub._instance_dict
