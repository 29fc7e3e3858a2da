"""The record of losses and scores in a work directory, on a disk that may be full."""

from __future__ import annotations

import logging
import os
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend


@VISBACKENDS.register_module()
class PatientVisBackend(LocalVisBackend):
    """mmengine's ``LocalVisBackend``, whose ``scalars.json`` does not end the run when the disk is full.

    A line that cannot be written is left out, which the log says once, until one can be written again. The arguments
    are those of :class:`mmengine.visualization.LocalVisBackend`.
    """

    _lost = 0

    def _dump(self, value_dict: dict[str, Any], file_path: str, file_format: str) -> None:
        """Add a line to a file, the whole of it or nothing."""
        size = os.path.getsize(file_path) if os.path.exists(file_path) else 0
        try:
            super()._dump(value_dict, file_path, file_format)
        except OSError as error:
            if os.path.exists(file_path):
                os.truncate(file_path, size)  # half a line would spoil the next
            if not self._lost:
                print_log(
                    f'{file_path} could not be written: {error}. Its lines are left out until it can be.',
                    logger='current',
                    level=logging.WARNING,
                )
            self._lost += 1
            return
        if self._lost:
            print_log(f'{file_path} is written again; {self._lost} lines were left out.', logger='current')
        self._lost = 0
