"""A checkpoint hook for full disks, kills and gradient accumulation."""

from __future__ import annotations

import hashlib
import io
import os.path as osp
from collections import deque
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from nepa_mm.checkpoints import CheckpointError, read_checkpoint
from nepa_mm.checkpoints.latest import NOTE
from nepa_mm.checkpoints.writing import remove_unfinished, write_checkpoint, write_text


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's hook, but an old file goes only after the new one is on the disk, and a full disk stops nothing.

    - A checkpoint that cannot be written (disk full, quota, permission) is warned about, the files before it stay, and
      the next interval tries again. Where the last try of a kind has failed, the run ends with an error.
    - ``last_checkpoint`` names a whole file at any moment; ``max_keep_ckpts`` therefore needs room for one more.
    - With gradient accumulation a checkpoint waits for the next update: gradients summed up so far are not in the file.
    - Files that a killed run has left half-written, or was about to remove, are removed at the start.
    - A new best score adds no checkpoint of the run. One that was written at the same iteration is written again, to
      name the best weights; otherwise the next one does, and until then the best that the last one names stays, too.
    - A run that is stopped inside an epoch (:class:`StopOnSignalHook`) saves ``epoch_1_iter_300.pth``, which is removed
      after the next checkpoint that ``interval`` asks for, and counts in no ``max_keep_ckpts``.

    The arguments are those of :class:`mmengine.hooks.CheckpointHook`.
    """

    keep_ckpt_ids: deque[int]
    last_ckpt: str | None

    def before_train(self, runner: Runner) -> None:
        """Find the folder and what is in it.

        Args:
            runner (Runner): The runner.
        """
        super().before_train(runner)
        self._waits = False
        self._outdated: list[str] = []
        self._failed: dict[str, str] = {}
        self._saved_at: int | None = None  # iterations done in the last checkpoint
        self.last_ckpt = runner.message_hub.get_info('last_ckpt')
        if _resumed_from(runner, self.out_dir):
            self._take_over(runner)
        self._named_bests = list(self._best_paths().values())  # by the last checkpoint
        self._remove_outdated(runner)
        if is_main_process():
            for folder in dict.fromkeys((self.out_dir, runner.work_dir)):
                for file in remove_unfinished(folder):
                    runner.logger.info(f'Removed {file}, which a run was killed in the middle of writing.')

    def _here(self, path: str) -> str:
        """The file of that name in the folder of this run."""
        return self.file_backend.join_path(self.out_dir, osp.basename(path))

    def _take_over(self, runner: Runner) -> None:
        """Go on with what the run before has left in the folder, which may have been moved or copied since."""
        self._saved_at = runner.iter
        self.last_ckpt = self._here(self.last_ckpt or str(runner._load_from))
        # The run may have been killed before it removed these.
        self._outdated = [self._here(name) for name in runner.message_hub.get_info('outdated_ckpts', [])]
        for key, best in self._best_paths().items():
            if best and self.file_backend.isfile(self._here(best)):
                self._set_best_path(key, self._here(best))

    # ---------------------------------------------------------------- the run's own checkpoints

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save where it is time, or where a checkpoint has waited for this update.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used.
            data_batch: Not used.
            outputs: Not used.
        """
        waited = self._waits and not _accumulating(runner)
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if waited and self._waits:
            step = runner.epoch if self.by_epoch else runner.iter + 1
            self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save the checkpoint of an epoch or iteration, then remove those that are one too many."""
        if _accumulating(runner):
            if not self._waits:
                runner.logger.info('The checkpoint waits for the next update: gradients are being accumulated.')
            self._waits = True
            return
        self._waits = False
        name = self.filename_tmpl.format(step)
        outdated, news = list(self._outdated), {}
        if self.max_keep_ckpts > 0:
            ids = [*(kept for kept in self.keep_ckpt_ids if kept != step), step]
            ids, too_many = ids[-self.max_keep_ckpts :], ids[: -self.max_keep_ckpts]
            news['keep_ckpt_ids'] = ids
            outdated += [self._here(self.filename_tmpl.format(old)) for old in too_many]
        written = self._save(runner, name, [old for old in outdated if old != self._here(name)], news, meta)
        if written and self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(ids, self.max_keep_ckpts)

    def save_stopped(self, runner: Runner) -> None:
        """Save a checkpoint after this iteration, not because it is due but because the run is about to stop.

        Args:
            runner (Runner): The runner, after an iteration's update.
        """
        done = runner.iter + 1
        if self._saved_at == done:
            return  # it was due, too
        name = self.filename_tmpl.format(done)
        if self.by_epoch:  # not the name of the epoch's end, whose checkpoint stays
            stem, ending = osp.splitext(self.filename_tmpl.format(runner.epoch))
            name = f'{stem}_iter_{done}{ending}'
        # It is outdated from the beginning: the last one is never removed, and when another is the last, it is.
        self._save(runner, name, [*self._outdated, self._here(name)], {}, dict(epoch=runner.epoch, iter=done))

    def _save(self, runner: Runner, name: str, outdated: list[str], news: dict[str, Any], meta: dict) -> bool:
        """Save a checkpoint of the run's own, then remove what it makes outdated; False if it cannot be written.

        Args:
            runner (Runner): The runner.
            name (str): Name of the file.
            outdated (list[str]): Files that nothing names after this one. Their names are in it: a run that is killed
                before it has removed them does so when it is resumed.
            news (dict[str, Any]): What else the message hub is to say from this file on.
            meta (dict): Epoch and iteration.
        """
        path = self._here(name)
        written = self._write(
            *(runner, 'last', name),
            dict(news, last_ckpt=path, outdated_ckpts=[osp.basename(old) for old in outdated]),
            meta,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            by_epoch=self.by_epoch,
            **self.args,
        )
        if written:
            self.last_ckpt, self._saved_at, self._outdated = path, meta['iter'], outdated
            self._named_bests = list(self._best_paths().values())
            self._remove_outdated(runner)
        return written

    def _write(self, runner: Runner, kind: str, name: str, news: dict[str, Any], meta: dict, **options: Any) -> bool:
        """Write a checkpoint and, for a run's own, the note that names it; False if that is not possible.

        Args:
            runner (Runner): The runner.
            kind (str): 'last', or the score that the file is the best in.
            name (str): Name of the file.
            news (dict[str, Any]): What the message hub is to say from this file on.
            meta (dict): Epoch and iteration.
            **options (Any): Further arguments of ``runner.save_checkpoint``.
        """
        hub = runner.message_hub
        before = {key: hub.get_info(key) for key in news}
        hub.update_info_dict(news)
        error: Exception | None = None
        try:
            runner.save_checkpoint(
                self.out_dir, name, self.file_client_args, meta=meta, backend_args=self.backend_args, **options
            )
            if kind == 'last' and is_main_process():
                write_text(news['last_ckpt'], osp.join(runner.work_dir, NOTE))
        except Exception as caught:
            error = caught
        # Only the first process writes, and all must go on, or end, alike.
        told = [None if error is None else (isinstance(error, OSError), str(error))]
        broadcast_object_list(told)
        if told[0] is None:
            if error is not None:
                raise error
            self._failed.pop(kind, None)
            return True
        can_go_on, text = told[0]
        if not can_go_on:
            raise error or CheckpointError(f'The first process could not save {name}: {text}')
        for key, value in before.items():
            if value is None:
                hub.pop_info(key)
            else:
                hub.update_info(key, value)
        if kind == 'last' and news['last_ckpt'] != self.last_ckpt:
            self._outdated.append(news['last_ckpt'])  # there already, if it was the note that failed
        self._failed[kind] = f'{osp.join(self.out_dir, name)}: {text}'
        runner.logger.warning(
            f'Checkpoint {name} could not be written: {text}. The files before it are kept; the run goes on '
            'and tries again when the next one is due.'
        )
        return False

    def _remove_outdated(self, runner: Runner) -> None:
        """Remove files that the last checkpoint does not need any more; the others are removed after it."""
        needed = [self.last_ckpt, *self._named_bests, *self._best_paths().values()]
        free = [path for path in dict.fromkeys(self._outdated) if path not in needed]
        self._outdated = [path for path in dict.fromkeys(self._outdated) if path in needed]
        for path in free if is_main_process() else ():
            if self.file_backend.isdir(path):  # checkpoints of DeepSpeed
                self.file_backend.rmtree(path)
            elif self.file_backend.isfile(path):
                self.file_backend.remove(path)

    # ---------------------------------------------------------------- the best

    def _best_paths(self) -> dict[str, str | None]:
        """The best checkpoint by each score."""
        if self.save_best is None:
            return {}
        if len(self.key_indicators) == 1:
            return {self.key_indicators[0]: self.best_ckpt_path}
        return self.best_ckpt_path_dict

    def _set_best_path(self, key: str, path: str) -> None:
        """Note the best checkpoint by a score."""
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save the weights if a score is better than all before, and have the run's checkpoint name them."""
        if not self.save_best:
            return
        now = runner.epoch if self.by_epoch else runner.iter
        unit = 'epoch' if self.by_epoch else 'iter'
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        better = False
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            ending = '' if len(self.key_indicators) == 1 else f'_{key}'
            best = runner.message_hub.get_info(f'best_score{ending}', self.init_value_map[rule])
            score = metrics[key]
            if score is None or not self.is_better_than[key](score, best):
                continue
            name = f'best_{key}_{self.filename_tmpl.format(now)}'.replace('/', '_')
            path = self._here(name)
            news = {f'best_score{ending}': score, f'best_ckpt{ending}': path}
            options = dict(save_optimizer=False, save_param_scheduler=False, by_epoch=False)
            if not self._write(runner, key, name, news, dict(epoch=runner.epoch, iter=runner.iter), **options):
                continue
            better = True
            old = self._best_paths().get(key)
            if old:  # in this folder, also where the run that is resumed was in another
                self._outdated.append(self._here(old))
            self._set_best_path(key, path)
            runner.logger.info(f'The best checkpoint with {score:0.4f} {key} at {now} {unit} is saved to {name}.')
        if not better:
            return
        if self._saved_at == runner.iter and self.last_ckpt not in self._outdated:  # in it if stopped there
            self._save_checkpoint_with_step(runner, now, dict(epoch=runner.epoch, iter=runner.iter))
        else:
            self._remove_outdated(runner)

    # ---------------------------------------------------------------- the end

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        """Save a copy without the keys that are not to be published; its name ends in its checksum."""
        checkpoint = read_checkpoint(ckpt_path)
        dropped = [key for key in checkpoint if key not in self.published_keys]
        if dropped:
            print_log(f'{dropped} of {ckpt_path} are not in published_keys and not published.', logger='current')
        published = {key: value for key, value in checkpoint.items() if key not in dropped}
        buffer = io.BytesIO()
        torch.save(published, buffer)
        path = f'{osp.splitext(ckpt_path)[0]}-{hashlib.sha256(buffer.getbuffer()).hexdigest()[:8]}.pth'
        try:
            write_checkpoint(published, path)
        except OSError as error:
            self._failed['published'] = f'{path}: {error}'
            return
        print_log(f'The checkpoint ({ckpt_path}) is published to {path}.', logger='current')

    def after_run(self, runner: Runner) -> None:
        """End with an error if the last checkpoint of a kind is not on the disk.

        Args:
            runner (Runner): The runner.

        Raises:
            CheckpointError: It is not; on all processes, so that none waits for another.
        """
        failed = [getattr(self, '_failed', {})]  # a test does not train
        broadcast_object_list(failed)
        if failed[0]:
            raise CheckpointError(
                f'The run is over, but this could not be written: {"; ".join(failed[0].values())}. Its last whole '
                f'checkpoint is {self.last_ckpt}: make room and go on from there with --resume.'
            )


def _accumulating(runner: Runner) -> bool:
    """Whether gradients of past iterations wait for an update."""
    wrapper: Any = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return any(not one.should_update() for one in wrappers)


def _resumed_from(runner: Runner, folder: str) -> bool:
    """Whether the run goes on from a checkpoint of this folder, by whatever name it was called then."""
    file = runner._load_from if runner._resume else None
    return bool(file) and osp.dirname(osp.abspath(str(file))) == osp.abspath(folder)
