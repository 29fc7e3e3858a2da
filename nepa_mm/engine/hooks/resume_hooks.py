"""What a run needs so that being killed and resumed changes nothing: :class:`nepa_mm.engine.NEPARunner` adds it."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..randomness import seed_step


@HOOKS.register_module()
class AddressedStepHook(Hook):
    """Set the generators before each iteration from (seed of the process, iteration), and before a validation.

    So what a step draws (drop path, dropout, mixing of images, rescaling of positions, masks) is the same whether the
    run was resumed in between or not, and nothing of it needs to be stored.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the generators.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used.
            data_batch: Not used.
        """
        seed_step('step', runner.seed, runner.iter)

    def before_val_epoch(self, runner: Runner) -> None:
        """Set the generators: all validations draw the same, also the first one after a resume.

        Args:
            runner (Runner): The runner.
        """
        seed_step('validation', runner.seed)


@HOOKS.register_module()
class FinishValidationHook(Hook):
    """Validate first where a run is resumed from a checkpoint whose validation was still to come.

    Checkpoints are written before the validation that is due at the same time. A run that is killed in between, or
    later, and resumed from such a checkpoint would leave that validation out, and might never know its best weights.
    """

    priority = 'LOWEST'  # after the hook that keeps the best checkpoint

    def before_val(self, runner: Runner) -> None:
        """Note that this validation needs not be done again, for the checkpoint that may be written in it.

        Args:
            runner (Runner): The runner.
        """
        runner.message_hub.update_info('scored_at_iter', runner.iter)

    def before_train(self, runner: Runner) -> None:
        """Do the validation that is missing.

        Args:
            runner (Runner): The runner.
        """
        if _validation_is_due(runner) and runner.message_hub.get_info('scored_at_iter') != runner.iter:
            runner.logger.info(f'Resumed at iteration {runner.iter}, whose validation is still to be done.')
            runner.val_loop.run()


def _validation_is_due(runner: Runner) -> bool:
    """Whether the training loop would validate at the place where the run stands."""
    loop: Any = runner.train_loop
    if runner.val_loop is None or runner.iter == 0:
        return False
    loop._decide_current_val_interval()
    if isinstance(loop, EpochBasedTrainLoop):
        if runner.iter != runner.epoch * len(loop.dataloader):
            return False  # inside an epoch
        now, last = runner.epoch, runner.max_epochs
    else:
        now, last = runner.iter, runner.max_iters
    return now >= loop.val_begin and (now % loop.val_interval == 0 or now == last)
