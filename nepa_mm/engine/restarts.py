"""Runs that torchrun starts anew (``--max-restarts``) after one of their processes has died."""

import os
from contextlib import suppress
from pathlib import Path

from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.logging import print_log

from nepa_mm.checkpoints.latest import NOTE

RESTARTS = 'TORCHELASTIC_RESTART_COUNT'
STARTED = 'RUN_STARTED'


def resumes_itself(work_dir: str) -> bool:
    """Whether all processes are restarted ones, of a run that has left a checkpoint: then they go on from it.

    Called by all processes, and answered alike to all. Torchrun counts a restart on the node whose process has died,
    and nowhere else, though all start anew; and a shared disk may show one node what it does not show another yet. So
    the highest count is taken, and the main process looks for checkpoints.

    ``RUN_STARTED`` in the environment (tools/dist_train.sh sets it) is the time, in seconds since 1970, when torchrun
    was started: what has been in the work directory before belongs to another run.

    Args:
        work_dir: The run's work directory.

    Returns:
        The answer. It is logged for a restart.
    """
    restarts = max(all_gather_object(int(os.environ.get(RESTARTS, 0))))
    if restarts == 0:
        return False
    # Where nobody says when torchrun was started, every checkpoint counts: it is newer than 1, and 0 stands for none.
    answer = [is_main_process() and _newest(work_dir) >= float(os.environ.get(STARTED, 1))]
    broadcast_object_list(answer)
    what = 'resuming from the last checkpoint of' if answer[0] else 'it starts as it did at first: no checkpoint yet in'
    print_log(f'Restart {restarts} by torchrun: {what} {work_dir}.', logger='current')
    return answer[0]


def _newest(work_dir: str) -> float:
    """When the newest checkpoint was written, in seconds since 1970; 0 where there is none."""
    newest = 0.0
    for file in (*Path(work_dir).glob('*.pth'), *Path(work_dir).glob(NOTE)):
        with suppress(FileNotFoundError):  # renamed or removed since it was listed
            newest = max(newest, file.stat().st_mtime)
    return newest
