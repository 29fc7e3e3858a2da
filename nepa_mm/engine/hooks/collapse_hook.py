"""CollapseHook: says when a pretraining has stopped learning about images, and why that may be."""

from __future__ import annotations

import warnings
from collections import deque
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

FIGURES = ('loss', 'target_mean_norm', 'target_std', 'copy_baseline')
_SEEN = 'collapse_seen'  # in the message hub
# Below it, what a batch shows after normalisation is one colour; photographs have about 0.5.
_LEAST_IMAGE_STD = 0.05
# Layers that start at LayerScale 1e-5 have begun to say something when it is above.
_LEAST_LAYER_SCALE = 0.01


@HOOKS.register_module()
class CollapseHook(Hook):
    """Warn of a collapsed pretraining by the figures of :class:`nepa_mm.models.NEPAHead`, which the loss does not show.

    A healthy run's loss goes towards -1, and so does one whose targets have become all alike. Looked at are, whenever
    a line is logged and from the values logged anyway:

    - ``target_mean_norm``: near 1 all targets point one way;
    - ``target_std``: near 0, against the largest seen, they do not differ;
    - ``copy_baseline``: what repeating the current patch would get. Not beaten for long, the model has learnt nothing;
      beaten by a loss that is nearly perfect, with ``shift=False``, it only says what it sees.

    A warning names what it saw and the likely cause, which is then looked for in the loss, in the images of the batch,
    in LayerScale and in the learning rate. It comes once, and again where a run has recovered in between. What was seen
    is kept in the message hub, and so in checkpoints: a run that is resumed warns as it would have. Runs without these
    figures (classification, segmentation) are left alone.

    Args:
        max_mean_norm (float): ``target_mean_norm`` from which on the targets point one way. Defaults to 0.98 (0.66 is
            the most that was seen in healthy runs).
        min_std (float): Share of the largest ``target_std`` so far, below which they do not differ. Defaults to 0.03.
        begin (int, optional): Iteration from which on the copy baseline should be beaten. Defaults to 5000, or a tenth
            of the run where that is less, but at least 200.
        patience (int, optional): Over how many iterations the means of both are compared. Defaults to 2000, or a
            twentieth of the run where that is less, but at least 100.

    Raises:
        ValueError: If an argument is outside of its range.
    """

    priority = 'LOW'  # after the line is logged

    def __init__(
        self,
        max_mean_norm: float = 0.98,
        min_std: float = 0.03,
        begin: int | None = None,
        patience: int | None = None,
    ) -> None:
        for name, share in (('max_mean_norm', max_mean_norm), ('min_std', min_std)):
            if not 0 < share < 1:
                raise ValueError(f'CollapseHook: {name}={share} is not between 0 and 1.')
        for name, count in (('begin', begin), ('patience', patience)):
            if count is not None and count < 1:
                raise ValueError(f'CollapseHook: {name}={count} is not positive.')
        self.max_mean_norm, self.min_std = max_mean_norm, min_std
        self.begin, self.patience = begin, patience

    def before_train(self, runner: Runner) -> None:
        """Start with nothing seen, or with what the run that is resumed has seen."""
        loggers = (hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook))
        self._interval = next(loggers, 50)
        self._begin = self.begin or min(5000, max(200, runner.max_iters // 10))
        self._patience = self.patience or min(2000, max(100, runner.max_iters // 20))
        seen = runner.message_hub.runtime_info.get(_SEEN, {}) if runner.iter else {}
        self._last: int = seen.get('last', runner.iter)
        self._largest_std: float = seen.get('largest_std', 0.0)
        self._points: deque[tuple[int, float, float]] = deque(seen.get('points', ()))
        self._warned: set[str] = set(seen.get('warned', ()))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the figures, where a line is logged."""
        short = self.end_of_epoch(runner.train_dataloader, batch_idx) and len(runner.train_dataloader) <= self._interval
        if not (self.every_n_inner_iters(batch_idx, self._interval) or short) or not is_main_process():
            return
        if not set(FIGURES) <= set(outputs or {}):
            return
        now, since = runner.iter + 1, runner.iter + 1 - self._last
        self._last = now
        histories = {name: runner.message_hub.get_scalar(f'train/{name}').data[0] for name in FIGURES}
        figures = {name: _recent_mean(values, since) for name, values in histories.items()}
        symptoms = self._symptoms(now, figures, _loss_of(runner.model))
        new = {name: text for name, text in symptoms.items() if name not in self._warned}
        if new:
            told = ', '.join(f'{key} {value:.4f}' for key, value in figures.items())
            cause = likely_cause(next(iter(new)), runner, data_batch)
            words = ' and '.join(new.values())
            runner.logger.warning(f'Collapse, iteration {now}: {words} ({told}). Likely cause: {cause}')
        for name in self._warned - set(symptoms):
            runner.logger.info(f'Collapse, iteration {now}: no longer seen ({name}).')
        self._warned = set(symptoms)
        seen = dict(
            last=now, largest_std=self._largest_std, points=list(self._points), warned=sorted(self._warned)
        )  # plain types, which a checkpoint is read with
        runner.message_hub.update_info(_SEEN, seen)

    def _symptoms(self, now: int, figures: dict[str, float], loss: nn.Module | None) -> dict[str, str]:
        """What is wrong at this moment, by name, in words."""
        found = {}
        if figures['target_mean_norm'] >= self.max_mean_norm:
            found['direction'] = 'all targets point one way'
        std = figures['target_std']
        self._largest_std = max(self._largest_std, std)
        if std <= self.min_std * self._largest_std:
            found['spread'] = 'the targets do not differ'

        self._points.append((now, figures['loss'], figures['copy_baseline']))
        while self._points[0][0] <= now - self._patience:
            self._points.popleft()
        reached, copied = np.mean([point[1:] for point in self._points], axis=0)
        # A run that is resumed from a checkpoint without what was seen has not been looked at for long enough.
        long = len(self._points) * self._interval >= self._patience and now >= self._begin
        if found or not np.isfinite([reached, copied]).all():
            return found  # where all targets are alike, copying is perfect, and no sign of its own
        if long and reached >= copied:
            found['copy'] = f'for {self._patience} iterations repeating the current patch would have done as well'
        itself = not getattr(loss, 'shift', True) and getattr(loss, 'distance', '') == 'cosine'
        if itself and reached <= min(copied, -0.95 * getattr(loss, 'loss_weight', 1.0)):
            found['itself'] = 'the prediction is next to perfect, though the targets differ'
        return found


def likely_cause(symptom: str, runner: Runner, data_batch: Any) -> str:
    """Look for what makes a run collapse.

    Args:
        symptom (str): 'direction', 'spread', 'copy' or 'itself'.
        runner (Runner): The runner, at the end of an iteration.
        data_batch (Any): The batch of this iteration.

    Returns:
        str: A sentence with what was found and what to do.
    """
    model: Any = _inner(runner.model)
    loss, backbone = _loss_of(model), getattr(model, 'backbone', None)
    images = model.data_preprocessor(data_batch, False)['inputs']
    mean, std = float(images.float().mean()), float(images.float().std(dim=(0, 2, 3)).mean())
    if std < _LEAST_IMAGE_STD:
        return (
            f'the images. After normalisation a batch has mean {mean:.3g} and standard deviation {std:.3g}: they are '
            'all of one colour, or mean and std of data_preprocessor do not fit them (127.5 each for 0 to 255).'
        )
    if not getattr(loss, 'stop_gradient', True):
        return 'stop_gradient=False in model.head.loss: the targets have learnt to be predicted. Set it to True.'
    if not getattr(loss, 'shift', True):
        return 'shift=False in model.head.loss: each patch is predicted from itself. Set it to True.'
    embed = getattr(backbone, 'patch_embed', None)
    if symptom != 'copy' and embed is not None and not any(p.requires_grad for p in embed.parameters()):
        return (
            'the patch embedding, which is frozen and maps all images to the same: look at what it was loaded from '
            '(load_from, init_cfg), or set freeze_patch_embed=False.'
        )
    named = model.named_parameters()
    scales = [_local(p).abs().max() for name, p in named if name.rpartition('.')[2].startswith('gamma')]
    if symptom == 'copy' and scales and (largest := float(torch.stack(scales).max())) < _LEAST_LAYER_SCALE:
        return (
            f'LayerScale, of which the largest is {largest:.2g}: the layers add next to nothing to the current patch. '
            'The learning rate is too low, its warm-up too long, or the layers are frozen.'
        )
    rates = [group['lr'] for group in runner.optim_wrapper.optimizer.param_groups]
    batch = len(images) * get_world_size() * getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    rule = 3e-4 * batch / 256
    if max(rates) > 2 * rule:
        return (
            f'the learning rate, {max(rates):.2g} for a global batch of {batch}; the paper has 3e-4 x batch / 256, '
            f'here {rule:.2g}. Lower optim_wrapper.optimizer.lr, or pass --auto-scale-lr.'
        )
    return (
        'not found: loss, images, LayerScale and learning rate are as they should be. Compare with a run of half the '
        'learning rate, and look at the images with tools/misc/verify_dataset.py.'
    )


def _recent_mean(values: np.ndarray, count: int) -> float:
    """Mean of the last values, but for those of updates that were left out."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # all of them NaN
        recent = np.asarray(values[-count:], dtype=float)
        return float(np.nanmean(np.where(np.isfinite(recent), recent, np.nan)))


def _inner(model: Any) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _loss_of(model: nn.Module) -> nn.Module | None:
    return getattr(getattr(_inner(model), 'head', None), 'loss_module', None)


def _local(param: Tensor) -> Tensor:
    """The part that is here, of a parameter sharded over processes: asking for the rest would need the others."""
    return (param.to_local() if hasattr(param, 'to_local') else param).detach()
