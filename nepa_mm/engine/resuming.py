"""Runs that can be killed at any moment and resumed as if nothing had happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from nepa_mm.checkpoints import CheckpointError
from nepa_mm.checkpoints.latest import last_whole
from nepa_mm.checkpoints.writing import REPLACING

from .loops import ResumableEpochLoop
from .randomness import addressed_sampler, build_dataloader
from .restarts import resumes_itself

_AnyRunner: Any = Runner if TYPE_CHECKING else object


class ResumableRuns(_AnyRunner):
    """The part of :class:`nepa_mm.engine.NEPARunner` that survives kills.

    - Randomness is addressed (:mod:`nepa_mm.engine.randomness`), so no state of a generator needs to be restored.
    - An epoch is gone on with where it stopped, and a validation that a checkpoint was written before is done.
    - Checkpoints are whole or not there; ``auto_resume=True`` in the config, which
      ``tools/train.py --resume`` sets, takes the last whole one of the work directory, and so does a run that torchrun
      starts anew after one of its processes has died.
    - A resume that would see other images, because images or batch have changed, is refused or warned about.
    """

    _train_dataloader: Any
    _val_dataloader: Any
    _purpose: str
    _resume: bool
    _load_from: str | None

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop on a data loader with addressed randomness.

        Args:
            loop (BaseLoop or dict): The loop or its config.

        Returns:
            BaseLoop: The loop.
        """
        if isinstance(loop, dict):
            # Before anything asks whether this is a resumed run. A restart leaves what the command line said of it.
            if not self._has_loaded and resumes_itself(self.work_dir):
                self.cfg.auto_resume = True
            self._train_dataloader = self._build_addressed(self._train_dataloader)
            loop = dict(loop)
            kind = 'EpochBasedTrainLoop' if loop.get('by_epoch') else loop.get('type')
            if kind in ('EpochBasedTrainLoop', EpochBasedTrainLoop):
                loop.pop('by_epoch', None)
                loop['type'] = ResumableEpochLoop
        return super().build_train_loop(loop)

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the validation loop; what its data draws at random, if anything, is the same in every validation.

        Args:
            loop (BaseLoop or dict): The loop or its config.

        Returns:
            BaseLoop: The loop.
        """
        if isinstance(loop, dict):
            self._val_dataloader = self._build_addressed(self._val_dataloader)
        return super().build_val_loop(loop)

    def _build_addressed(self, dataloader: DataLoader | dict) -> DataLoader:
        return build_dataloader(dataloader, self.seed, self._randomness_cfg.get('diff_rank_seed', False))

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """Register the hooks of the config and those that make a resumed run exact.

        Args:
            default_hooks (dict, optional): As in mmengine.
            custom_hooks (list, optional): As in mmengine.
        """
        # mmengine's default is its own checkpoint hook; one that the config names is obeyed
        default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook', interval=1)) | (default_hooks or {})
        super().register_hooks(default_hooks, custom_hooks)
        for kind in ('AddressedStepHook', 'FinishValidationHook'):
            self.register_hook(dict(type=kind))

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save a checkpoint; on a local disk it is whole or not there.

        Args:
            out_dir (str): The folder.
            filename (str): Name of the file.
            file_client_args (dict, optional): As in mmengine, which advises against it.
            save_optimizer (bool): Whether to save the optimizer's state. Defaults to True.
            save_param_scheduler (bool): Whether to save the schedulers' state. Defaults to True.
            meta (dict, optional): What else to note, such as epoch and iteration.
            by_epoch (bool): What epoch and iteration are where ``meta`` does not say. Defaults to True.
            backend_args (dict, optional): Another storage.

        Raises:
            OSError: The file cannot be written; what stood there before still stands.
        """
        meta = dict(meta or {}, data=self._data_facts())
        if backend_args is None and file_client_args is None and type(get_file_backend(out_dir)) is LocalBackend:
            backend_args = dict(backend=REPLACING)
        super().save_checkpoint(
            out_dir, filename, file_client_args, save_optimizer, save_param_scheduler, meta, by_epoch, backend_args
        )

    def load_or_resume(self) -> None:
        """Load or resume; ``auto_resume``, or ``resume`` without ``load_from``, takes the last whole checkpoint.

        Without any checkpoint in the work directory the run starts as if that had not been asked for: a job that
        always resumes, as restartable cluster jobs do, must be able to begin.

        Raises:
            CheckpointError: Every checkpoint of the work directory is damaged.
        """
        asked = self.cfg.get('auto_resume') or (self._resume and self._load_from is None)
        # A test with the config of a resumed run tests the checkpoint that it is given.
        if asked and not self._has_loaded and self._purpose != 'test':
            latest = self._last_whole()
            if latest is None:
                start = f'load_from={self._load_from}' if self._load_from else 'the beginning'
                self.logger.info(f'--resume: no checkpoint in {self.work_dir}; starts from {start}.')
                self._resume = False
            else:
                self._resume, self._load_from = True, latest
        super().load_or_resume()

    def _last_whole(self) -> str | None:
        """Find the last whole checkpoint: one process looks, for it may rename files, and all hear of it."""
        found: list[Any] = [None, None]
        error: Exception | None = None
        if is_main_process():
            try:
                latest = last_whole(self.work_dir)
                found[0] = latest and str(latest)
            except Exception as caught:  # whatever it is: the others wait for an answer
                error, found[1] = caught, str(caught) or type(caught).__name__
        broadcast_object_list(found)
        if found[1] is not None:
            raise error or CheckpointError(found[1])
        return found[0]

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume training from a checkpoint.

        Args:
            filename (str): The checkpoint.
            *args: Further arguments of the runner's ``resume`` in mmengine.
            **kwargs: As above.

        Raises:
            CheckpointError: As :meth:`check_data`.
        """
        super().resume(filename, *args, **kwargs)
        # mmengine has taken the seed of the checkpoint, but the samplers were built before.
        seed = self.seed - self.rank if self._randomness_cfg.get('diff_rank_seed') else self.seed
        for loader in (self.train_dataloader, self._val_dataloader):
            sampler = addressed_sampler(loader) if isinstance(loader, DataLoader) else None
            if sampler is not None and sampler.reseed(seed) and loader is self.train_dataloader:
                self._begin_iterator_anew()

    def _begin_iterator_anew(self) -> None:
        """Forget what workers have taken already: upstream's mmengine starts them with the loop, before a resume."""
        loop: Any = self.train_loop
        iterator: Any = getattr(loop, 'dataloader_iterator', None)
        if getattr(iterator, '_iterator', None) is not None:
            loop.dataloader_iterator = type(iterator)(loop.dataloader)

    def _data_facts(self) -> dict[str, int]:
        """What decides which images an iteration sees."""
        loader = self.train_dataloader
        batch = getattr(loader.batch_sampler, 'batch_size', 1)
        facts = dict(images=len(loader.dataset), batch=batch * self.world_size, processes=self.world_size)
        if isinstance(self.train_loop, EpochBasedTrainLoop):
            # With drop_last it takes more than the others to know: each process drops of its own share.
            facts['iterations'] = len(loader)
        return facts

    def check_data(self, before: dict[str, int] | None, filename: str) -> None:
        """Refuse or warn where the iterations of this run are not those of the run that is resumed.

        Args:
            before (dict[str, int], optional): ``meta['data']`` of the checkpoint; None in one of another runner.
            filename (str): The checkpoint.

        Raises:
            CheckpointError: An epoch of this run has other batches, so that the schedules have another length.
        """
        now = self._data_facts()
        if before is None:
            return
        now = {name: value for name, value in now.items() if name in before}
        before = {name: value for name, value in before.items() if name in now}
        if before == now:
            return
        old, new = (_in_words(data) for data in (before, now))
        if all(before[name] == now[name] for name in now if name != 'processes'):
            self.logger.info(
                f'{filename} was trained on {old} and goes on with {now["processes"]}: the same images in the same '
                'batches, augmented the same, but not equal to the last bit.'
            )
        elif isinstance(self.train_loop, EpochBasedTrainLoop):
            raise CheckpointError(
                f'{filename} was trained on {old}; this run has {new}, so its epochs and schedules have another '
                'length. Resume with as many images and the same batch (processes x train_dataloader.batch_size), with '
                'drop_last=True on as many processes, or start a new run from its weights: load_from=, without '
                '--resume.'
            )
        else:
            self.logger.warning(
                f'{filename} was trained on {old}; this run has {new}: other images follow than would have.'
            )


def _in_words(facts: dict[str, int]) -> str:
    epoch = f', {facts["iterations"]} iterations per epoch' if 'iterations' in facts else ''
    return f'{facts["images"]} images in batches of {facts["batch"]} ({facts["processes"]} processes{epoch})'
