"""BadDataHook: a training that goes on without the images it cannot read, and says which."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from nepa_mm.datasets import BadImages
from nepa_mm.datasets.bad_images import parse

LIST, FOLDER = 'bad_images.txt', 'bad_images'
# Named in full when they are found; the others are in the list.
SHOWN = 5


@HOOKS.register_module()
class BadDataHook(Hook):
    """Have training images that cannot be read replaced, count them, and stop where they are too many.

    :class:`nepa_mm.engine.NEPARunner` puts a :class:`nepa_mm.datasets.CheckedDataset` around the training set of a run
    that has this hook. It takes the next readable image of the data set in the place of a bad one, and notes the bad
    one in ``bad_images/rank_N.jsonl`` of the work directory. So does a ``DecodeDataPreprocessor``, which meets the
    damage in JPEG files that are decoded where the model is, with the next readable image of the batch. The hook counts
    each file once, over all workers, processes, epochs and resumes, and writes ``bad_images.txt``: a path, a tab and
    what is wrong, per line. Without the hook, and in evaluation always, such an image is an error. A list that cannot
    be written, on a full disk, is written at a later look; the run goes on.

    Args:
        max_bad_share (float): Stop when more than this part of the training images is bad. 0 stops at the first.
            Defaults to 0.01.
        interval (int): Iterations between two looks; it also looks after each epoch and at the end. A data worker looks
            at its own process's share at each bad image. Defaults to 500.

    Raises:
        ValueError: An argument is out of range.
        TooManyBadImagesError: While training: too many are bad; names some, and the list.
    """

    priority = 'LOW'

    def __init__(self, max_bad_share: float = 0.01, interval: int = 500) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f'BadDataHook: max_bad_share={max_bad_share} is a part of the images, from 0 to 1.')
        if interval < 1:
            raise ValueError(f'BadDataHook: interval={interval} is not positive.')
        self.max_bad_share, self.interval = max_bad_share, interval
        self.bad: dict[str, str] = {}
        self._own: BadImages | None = None
        self._unwritten = False

    def start(self, runner: Runner) -> BadImages:
        """Begin the list, before any data worker runs; a run that is resumed goes on with its own.

        Args:
            runner (Runner): The run.

        Returns:
            BadImages: What this process's data workers write.
        """
        folder = Path(runner.work_dir) / FOLDER
        rank, world_size = get_dist_info()
        resumed = runner._resume or runner.cfg.get('auto_resume')
        files = sorted(folder.glob('rank_*.jsonl'))
        if resumed:
            for file in files:
                self.bad |= parse(file.read_bytes())
        else:
            # Another process may have begun its own by now, but not one that this run does not have.
            gone = [folder / f'rank_{rank}.jsonl']
            if rank == 0:
                gone += [file for file in files if int(file.stem[5:]) >= world_size]
                gone.append(folder.parent / LIST)
            for file in gone:
                file.unlink(missing_ok=True)
        self._own = BadImages(folder / f'rank_{rank}.jsonl', self.max_bad_share)
        return self._own

    def before_train(self, runner: Runner) -> None:
        """Give the list to what decodes images in this process."""
        for module in runner.model.modules():
            if hasattr(module, 'bad_images'):
                module.bad_images = self._own

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self._look(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Look after an epoch, whose workers may end with it."""
        self._look(runner)

    def after_train(self, runner: Runner) -> None:
        """Look a last time, and sum up."""
        self._look(runner)
        if self.bad:
            where = 'could not be written to' if self._unwritten else 'is in'
            runner.logger.warning(f'Bad images: {self._in_words()}; the list {where} {self._list(runner)}')

    def _look(self, runner: Runner) -> None:
        """Bring together what all processes know."""
        if self._own is None:
            return
        everybody: list[dict[str, str]] = all_gather_object(self._own.read())
        new = {path: reason for bad in everybody for path, reason in bad.items() if path not in self.bad}
        self.bad |= new
        # Workers that are started later know what their process knows.
        self._own.known |= self.bad
        if new or self._unwritten:
            self._write(runner)
        if not new:
            return
        lines = [f'{path}: {reason}' for path, reason in list(new.items())[:SHOWN]]
        lines += [f'and {len(new) - SHOWN:,} more'] * (len(new) > SHOWN)
        file = self._list(runner)
        runner.logger.warning(f'Bad images: {self._in_words()}. New in {file}:\n  ' + '\n  '.join(lines))
        self._own.check(None if self._unwritten else file)

    def _write(self, runner: Runner) -> None:
        """Write the list, or try again at the next look."""
        if get_dist_info()[0] != 0:
            return
        file = self._list(runner)
        try:
            write_list(file, self.bad)
        except OSError as error:
            if not self._unwritten:
                runner.logger.warning(
                    f'{file} could not be written: {error}. The run goes on; it is tried again at each look.'
                )
            self._unwritten = True
        else:
            self._unwritten = False

    def _in_words(self) -> str:
        total = self._own.total if self._own is not None else 0
        share = len(self.bad) / max(1, total)
        return f'{len(self.bad):,} of {total:,} training images cannot be read ({share:.2%}); others took their place'

    def _list(self, runner: Runner) -> Path:
        return Path(runner.work_dir) / LIST


def write_list(file: Path, bad: dict[str, str]) -> None:
    """Write the list of bad images, all or nothing.

    Args:
        file: Where to.
        bad: Path to reason.

    Raises:
        OSError: It cannot be written; what stood there before still stands.
    """
    lines = [f'{path}\t{" ".join(reason.split())}\n' for path, reason in sorted(bad.items())]
    partial = file.with_name(f'{file.name}.partial')
    try:
        partial.write_text(''.join(lines), encoding='utf-8', errors='surrogateescape')
        os.replace(partial, file)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
