"""BadNumbersHook: NaN and infinity are counted, kept out of checkpoints, and end a run that cannot go on."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint
from torch import Tensor, nn

from ..finite_optim_wrapper import FiniteOptimWrapper, Update

# Updates that a GPU may be ahead of the hook. The number, not the clock, says when one is looked at, so that all
# processes stop at the same one; a GPU's queue of kernels is never this long, so looking does not wait.
_LAG = 8


class BadNumbersError(RuntimeError):
    """A run cannot go on: its numbers are NaN or infinite."""


@dataclass
class _Iteration:
    """One iteration of those that an update adds up."""

    losses: dict[str, Tensor]
    samples: list[str]


@dataclass
class _Seen:
    """An update, and what led to it."""

    iteration: int
    lr: list[float]
    update: Update
    numbers: Tensor  # (4,): skipped, gradient norm, loss scale or 1, bad losses or 0; on their way to the CPU
    arrived: Any  # event of the GPU; None on a CPU
    parts: list[_Iteration]


@HOOKS.register_module()
class BadNumbersHook(Hook):
    """Count the updates that :class:`FiniteOptimWrapper` leaves out, and stop when nothing else happens.

    - Each is logged with its iteration, loss and gradient norm, and counted (``skipped_updates`` in the message hub,
      which a checkpoint holds; told at the end).
    - After ``patience`` in a row the run ends with :class:`BadNumbersError`. What was seen is in the work directory, in
      ``bad_numbers.json`` (``bad_numbers_rank1.json``, ... of the other processes): for each of them the iteration, the
      losses, the gradient norm, the learning rates, the parameters whose gradients were not finite and the files of the
      batch. The last checkpoint stays what it was.
    - What a float16 loss scaler tries is counted apart (``loss_scale_overflows``): an overflow is how it finds its
      scale. It counts as bad where the loss is not finite, in any process, or the scale is 1 and still overflows.
    - Running averages (EMAHook, mmengine's or mmpretrain's) are not moved by an update that was left out.
    - No checkpoint is written with NaN or infinity among its weights, averages and optimizer state: the run ends with
      the same error instead, and the files there stay. A buffer that held such numbers when training began, as a mask
      with -inf does, may go on holding them.

    On a GPU nothing waits for the numbers: they are looked at some updates later, and before a checkpoint.

    Args:
        patience (int): Updates left out in a row that end the run. Defaults to 10.

    Raises:
        ValueError: If ``patience`` is not positive.
    """

    priority = 'ABOVE_NORMAL'  # before averages and checkpoints

    def __init__(self, patience: int = 10) -> None:
        if patience < 1:
            raise ValueError(f'BadNumbersHook: patience={patience} is not positive; how many bad updates end the run?')
        self.patience = patience
        self._parts: list[_Iteration] = []
        self._waiting: deque[_Seen] = deque()
        self._in_a_row: list[dict[str, Any]] = []
        self._num_updates = 0
        self._infinite_buffers: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Find the wrapper and the averages, and buffers that are not meant to be finite."""
        self._infinite_buffers = {
            name
            for name, buffer in _inner(runner.model).named_buffers()
            if buffer.is_floating_point() and not buffer.isfinite().all()
        }
        wrapper = runner.optim_wrapper
        self._parts, self._in_a_row, self._num_updates = [], [], getattr(wrapper, 'num_updates', 0)
        self._waiting.clear()
        if not isinstance(wrapper, FiniteOptimWrapper):
            runner.logger.warning(
                f'BadNumbersHook: {type(wrapper).__name__} does not leave out updates that are NaN or infinite; use '
                'FiniteOptimWrapper (float32) or AutocastOptimWrapper (bfloat16, float16). Checkpoints are checked.'
            )
            return
        for average in _averages(runner):
            if 'update_parameters' not in vars(average):
                update = partial(_average, average, average.update_parameters, wrapper)
                average.update_parameters = update

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the updates whose numbers have arrived."""
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, FiniteOptimWrapper):
            return
        losses = {name: value.detach() for name, value in (outputs or {}).items() if isinstance(value, Tensor)}
        self._parts.append(_Iteration(losses, sample_names(data_batch)))
        update = wrapper.last_update
        if wrapper.num_updates == self._num_updates or update is None:
            return
        self._num_updates = wrapper.num_updates
        scale = torch.ones_like(update.skipped) if update.scale is None else update.scale
        bad_losses = torch.zeros_like(update.skipped) if update.bad_losses is None else update.bad_losses
        numbers = torch.stack([update.skipped, update.grad_norm, scale, bad_losses]).to('cpu', non_blocking=True)
        arrived = None
        if update.skipped.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        lr = [group['lr'] for group in wrapper.optimizer.param_groups]
        self._waiting.append(_Seen(runner.iter + 1, lr, update, numbers, arrived, self._parts))
        self._parts = []
        self._look(runner, lag=_LAG if arrived is not None else 0)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at all updates so far, and refuse to write what is not finite."""
        self._look(runner)
        parts = [(part, checkpoint.get(part)) for part in ('state_dict', 'optimizer')]
        # An EMA hook, which comes later, puts its average into the checkpoint, and in the place of the weights.
        parts += [('average', average.module.state_dict()) for average in _averages(runner)]
        bad = [
            f'{part}.{name}'
            for part, tree in parts
            for name, tensor in _tensors(tree)
            if tensor.is_floating_point()
            and not tensor.isfinite().all()
            and not (part != 'optimizer' and name in self._infinite_buffers)
        ]
        if bad:
            raise BadNumbersError(
                f'{len(bad)} tensors of the model are NaN or infinite after iteration {runner.iter + 1} '
                f'({_some(bad, 5)}), so no checkpoint is written. {self._advice(runner)}'
            )

    def after_train(self, runner: Runner) -> None:
        """Look at the last updates, and tell the sums."""
        self._look(runner)
        skipped = runner.message_hub.get_info('skipped_updates', 0)
        overflows = runner.message_hub.get_info('loss_scale_overflows', 0)
        if skipped or overflows:
            scaler = f', and {overflows} in which the loss scaler tried too large a scale' if overflows else ''
            runner.logger.warning(f'{skipped} updates of this run were left out: NaN or infinite{scaler}.')

    def _look(self, runner: Runner, lag: int = 0) -> None:
        while len(self._waiting) > lag:
            seen = self._waiting.popleft()
            if seen.arrived is not None:
                seen.arrived.synchronize()
            # Not item(), which would be for a device to wait.
            skipped, grad_norm, scale, bad_losses = seen.numbers.numpy().tolist()
            if not skipped:
                self._in_a_row = []
            elif scale > 1 and not bad_losses:
                _count(runner, 'loss_scale_overflows')
            else:
                self._note(runner, seen, grad_norm)

    def _note(self, runner: Runner, seen: _Seen, grad_norm: float) -> None:
        """Write down an update that was left out; stop at the last of ``patience``."""
        total = _count(runner, 'skipped_updates')
        losses = {
            name: [_plain(part.losses[name]) for part in seen.parts if name in part.losses]
            for name in dict.fromkeys(name for part in seen.parts for name in part.losses)
        }
        names = {id(param): name for name, param in _inner(runner.model).named_parameters()}
        finite = seen.update.norms.isfinite().tolist()
        params = [names.get(id(p), '?') for p, ok in zip(seen.update.params, finite, strict=True) if not ok]
        samples = [name for part in seen.parts for name in part.samples]
        self._in_a_row.append(
            dict(
                iteration=seen.iteration,
                losses=losses,
                grad_norm=_plain(grad_norm),
                lr=sorted(set(seen.lr)),
                parameters_with_bad_gradients=params,
                num_parameters=len(finite),
                samples=samples,
            )
        )
        row = len(self._in_a_row)
        if total <= 10 or total % 100 == 0 or row == self.patience:
            runner.logger.warning(
                f'Iteration {seen.iteration}: the update is left out, gradient norm {grad_norm}, loss '
                f'{_some(losses.get("loss", ["?"]), 4)}; bad gradients in {len(params)} of {len(finite)} parameters '
                f'({_some(params, 3)})' + (f'; images {_some(samples, 4)}' if samples else '') + f'. {row} in a row, '
                f'{total} in all' + ('; from here on every hundredth is logged.' if total == 10 else '.')
            )
        if row >= self.patience:
            self._stop(runner)

    def _stop(self, runner: Runner) -> None:
        rank = get_rank()
        file = Path(runner.work_dir, f'bad_numbers_rank{rank}.json' if rank else 'bad_numbers.json')
        bad = [name for name, p in _inner(runner.model).named_parameters() if not _is_finite(p)]
        report = dict(
            processes=get_world_size(),
            rank=rank,
            skipped_updates=runner.message_hub.get_info('skipped_updates', 0),
            loss_scale_overflows=runner.message_hub.get_info('loss_scale_overflows', 0),
            parameters_not_finite=bad,
            last_checkpoint=find_latest_checkpoint(runner.work_dir),
            in_a_row=self._in_a_row,
        )
        try:
            file.write_text(json.dumps(report, indent=2) + '\n')
            told = f'What was seen stands in {file}.'
        except OSError as error:
            told = f'What was seen could not be written to {file} ({error}).'
        state = f'{len(bad)} weights hold NaN or infinity ({_some(bad, 3)})' if bad else 'The weights are finite'
        raise BadNumbersError(
            f'{self.patience} updates in a row were NaN or infinite, the last in iteration '
            f'{self._in_a_row[-1]["iteration"]}. {state}. {told} {self._advice(runner)}'
        )

    def _advice(self, runner: Runner) -> str:
        last = find_latest_checkpoint(runner.work_dir)
        where = f'The last checkpoint is {last}; resume from it' if last else 'There is no checkpoint yet; start again'
        return (
            f'{where} with a lower optim_wrapper.optimizer.lr or clip_grad, or without the images named there. If it '
            'stops at the same iteration whatever the lr, look at these images and at the loss.'
        )


def sample_names(data_batch: Any) -> list[str]:
    """What a batch was made of, where its samples know.

    Args:
        data_batch (Any): A batch as the data loader gives it.

    Returns:
        list[str]: Path of each image, or ``sample N`` where only its index in the data set is known; empty where
        neither is.
    """
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    names = []
    for sample in samples if isinstance(samples, (list, tuple)) else ():
        path, index = getattr(sample, 'img_path', None), getattr(sample, 'sample_idx', None)
        if path is not None or index is not None:
            names.append(f'sample {index}' if path is None else str(path))
    return names


def _average(average: BaseAveragedModel, update: Any, wrapper: FiniteOptimWrapper, model: nn.Module) -> None:
    """What stands in for an average's ``update_parameters``: it knows of updates that were left out."""
    last = wrapper.last_update
    if last is None:
        update(model)
    elif last.skipped.is_cuda and isinstance(getattr(average, 'momentum', None), float):
        momentum = average.momentum
        average.momentum = momentum * (1 - last.skipped)  # lerp_ takes a tensor, too
        try:
            update(model)
        finally:
            average.momentum = momentum
    elif last.skipped.cpu().numpy():
        average.steps += 1  # which counts iterations: `interval` is in them
        if not average.update_buffers:
            # Copied at each iteration, they may be those of before the bad update was found out, in an iteration of it.
            for buffer, source in zip(average.module.buffers(), model.buffers(), strict=True):
                buffer.copy_(source)
    else:
        update(model)


def _averages(runner: Runner) -> list[BaseAveragedModel]:
    models = (getattr(hook, 'ema_model', None) for hook in runner.hooks)
    return [model for model in models if isinstance(model, BaseAveragedModel)]


def _count(runner: Runner, name: str) -> int:
    number = runner.message_hub.get_info(name, 0) + 1
    runner.message_hub.update_info(name, number)
    return number


def _inner(model: Any) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _is_finite(param: nn.Parameter) -> bool:
    local = param.to_local() if hasattr(param, 'to_local') else param  # sharded: the part that is here
    return bool(local.isfinite().all())


def _tensors(tree: Any, name: str = '') -> Iterable[tuple[str, Tensor]]:
    """Tensors of nested dicts, with their names."""
    if isinstance(tree, Tensor):
        yield name, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _tensors(value, f'{name}.{key}' if name else str(key))


def _plain(number: Tensor | float) -> float | str:
    """A number as JSON knows it, which has neither NaN nor infinity."""
    value = float(number)
    return value if math.isfinite(value) else str(value)


def _some(names: list, limit: int) -> str:
    told = ', '.join(map(str, names[:limit]))
    return told + (f', ... {len(names) - limit} more' if len(names) > limit else '')
