"""The one loader through which weights enter a model: it reports what it did and refuses what does not fit."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from .reader import RELEASE_EMA_WEIGHTS, CheckpointError, read_checkpoint
from .release_keys import from_release, is_release

_QK_NORM = re.compile(r'layers\.\d+\.attn\.[qk]_norm\.weight$')
# A backbone may lack or bring these without being another one: the masking ablation's token, and the final norm, which
# a model with `final_norm=False` leaves unused (but which no model may miss).
_MAY_LACK = re.compile(r'(^|\.)mask_token$')
_MAY_BRING = re.compile(r'(^|\.)(mask_token|norm\.(weight|bias))$')
# What a checkpoint may carry before the names of the module that is loaded (besides DDP's `module.`).
_WRAPPERS = ('', 'backbone.')
WEIGHTS = ('raw', 'ema')


@dataclass
class LoadReport:
    """What a load did, by parameter name. ``str(report)`` is the text that is logged.

    Args:
        source (str): Where the weights came from.
        matched (list[str]): Loaded.
        filled (list[str]): Absent QK-norm weights, set to one, which is what plain QK-norm computes.
        missing (list[str]): In the model, not in the checkpoint: left as they were.
        unexpected (list[str]): In the checkpoint, not in the model: not used.
        reshaped (list[str]): In both, with different shapes: left as they were.
    """

    source: str
    matched: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f'Loaded {len(self.matched)} tensors from {self.source}.']
        for names, what in (
            (self.filled, 'QK-norm weights are not in the checkpoint (plain QK-norm) and were set to 1'),
            (self.missing, 'are not in the checkpoint and keep their initial values'),
            (self.reshaped, 'have another shape in the checkpoint and keep their initial values'),
            (self.unexpected, 'of the checkpoint have no place in the model and were not used'),
        ):
            if names:
                lines.append(f'  {len(names)} {what}: {_shorten(names)}')
        return '\n'.join(lines)


def load_weights(
    module: nn.Module,
    checkpoint: str | Path,
    prefix: str | None = None,
    weights: str = 'raw',
    strict: bool = False,
    map_location: Any = 'cpu',
) -> LoadReport:
    """Load a checkpoint file into a module.

    Args:
        module (nn.Module): A backbone or a whole model.
        checkpoint (str | Path): See :func:`read_checkpoint`.
        prefix (str, optional): Take only what stands under this prefix, and strip it. Defaults to None: find it.
        weights (str): 'raw' or 'ema', for a checkpoint that holds both. Defaults to 'raw', as the release transfers.
        strict (bool): Raise on any difference. Defaults to False.
        map_location: As in ``torch.load``.

    Returns:
        LoadReport: What was loaded and what was not.

    Raises:
        CheckpointError: See :func:`read_checkpoint` and :func:`load_state_dict`.
    """
    _check_weights(weights)
    loaded = read_checkpoint(_release_file(checkpoint, weights), map_location)
    if Path(checkpoint).is_dir():  # raw and average lie in files of their own
        state_dict, source = loaded['state_dict'], f'{checkpoint} ({weights} weights)'
    else:
        state_dict, source = select_weights(loaded, weights, str(checkpoint))
    return load_state_dict(module, state_dict, source=source, prefix=prefix, strict=strict)


def _check_weights(weights: str) -> None:
    if weights not in WEIGHTS:
        raise CheckpointError(f'weights={weights!r} is unknown; choose one of {list(WEIGHTS)}.')


def _release_file(checkpoint: str | Path, weights: str) -> str | Path:
    """The file of a release directory that holds the raw weights, or their average; other paths as they are."""
    if weights == 'ema' and Path(checkpoint).is_dir():
        file = Path(checkpoint) / RELEASE_EMA_WEIGHTS
        if not file.is_file():
            raise CheckpointError(
                f"{checkpoint} has no {RELEASE_EMA_WEIGHTS}, which holds EMA weights; use weights='raw'."
            )
        return file
    return checkpoint


def select_weights(checkpoint: Mapping[str, Any], weights: str, source: str) -> tuple[dict[str, Tensor], str]:
    """Raw or EMA weights of a checkpoint, and how to call them in a report.

    mmengine's EMAHook swaps on save: ``state_dict`` then holds the averaged weights and ``ema_state_dict`` the raw
    ones.
    """
    _check_weights(weights)
    has_ema = 'ema_state_dict' in checkpoint
    if weights == 'ema' and not has_ema:
        raise CheckpointError(f"{source} holds no EMA weights; it was saved without an EMAHook. Use weights='raw'.")
    key = 'ema_state_dict' if has_ema and weights == 'raw' else 'state_dict'
    state_dict = {k: v for k, v in checkpoint[key].items() if k != 'steps'}
    return state_dict, f'{source} ({weights} weights)' if has_ema else source


def load_state_dict(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    source: str = 'a state dict',
    prefix: str | None = None,
    strict: bool = False,
) -> LoadReport:
    """Load tensors into a module and say what happened; nothing is changed where it raises.

    A head may differ (another task, another number of classes): that is counted and named. The backbone may not: every
    parameter of it has to be in the checkpoint, but for what plain QK-norm lacks.

    Args:
        module (nn.Module): A backbone or a whole model (with a ``backbone`` attribute), wrapped for DDP or not.
        state_dict (Mapping[str, Tensor]): Our names or the release's.
        source (str): Named in the report and in errors.
        prefix (str, optional): Take only what stands under this prefix, and strip it. Defaults to None: '' or
            'backbone.', whichever matches more. DDP's 'module.' is stripped in any case.
        strict (bool): Raise on any difference. Defaults to False.

    Returns:
        LoadReport: What was loaded and what was not.

    Raises:
        CheckpointError: Nothing matches, the backbone is another one, a value is NaN or infinite, or there is any
            difference and ``strict`` is set.
    """
    module = module.module if is_model_wrapper(module) else module  # type: ignore[assignment]
    own = module.state_dict()
    backbone = 'backbone.' if hasattr(module, 'backbone') else ''
    tensors = {k.removeprefix('module.'): v for k, v in state_dict.items() if isinstance(v, Tensor)}
    if is_release(tensors):
        # A release file is a backbone, and perhaps its classifier.
        tensors = {k if k.startswith('head.') else backbone + k: v for k, v in from_release(tensors).items()}
    tensors = _strip(tensors, own, prefix, source)

    report = LoadReport(source)
    for name, tensor in own.items():
        if name in tensors:
            (report.matched if tensors[name].shape == tensor.shape else report.reshaped).append(name)
        elif _QK_NORM.search(name):
            report.filled.append(name)
        elif not name.endswith('num_batches_tracked'):
            report.missing.append(name)
    report.unexpected = [name for name in tensors if name not in own]
    _refuse_unnoticed_scratch(report, own, tensors, backbone, strict)

    chosen = {name: tensors[name] for name in report.matched}
    broken = [n for n, v in chosen.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if broken:
        raise CheckpointError(
            f'{source} holds NaN or infinite values in {len(broken)} tensors ({_shorten(broken)}): the run that wrote '
            'it had diverged. Take an earlier checkpoint.'
        )
    chosen |= {name: torch.ones_like(own[name]) for name in report.filled}
    module.load_state_dict(chosen, strict=False)
    return report


def _strip(tensors: dict[str, Tensor], own: Iterable[str], prefix: str | None, source: str) -> dict[str, Tensor]:
    """Names as the module has them: without what wraps them in the checkpoint."""

    def under(start: str) -> dict[str, Tensor]:
        return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}

    names = set(own)
    if prefix is not None:
        prefix = prefix.removeprefix('module.')
        prefix = prefix if prefix.endswith('.') or not prefix else prefix + '.'
        stripped = under(prefix)
        if not stripped:
            starts = sorted({k.split('.')[0] for k in tensors})
            raise CheckpointError(
                f'{source} has no key that starts with prefix={prefix!r}; its keys start with {starts}.'
            )
        return stripped
    best = max(_WRAPPERS, key=lambda start: len(names & under(start).keys()))
    return under(best) | {k: v for k, v in tensors.items() if not k.startswith(best)}


def _refuse_unnoticed_scratch(
    report: LoadReport, own: dict[str, Tensor], tensors: dict[str, Tensor], backbone: str, strict: bool
) -> None:
    if not report.matched:
        raise CheckpointError(
            f'Nothing of {report.source} fits the model, which would train from scratch unnoticed.\n'
            f'  The model has {_shorten(list(own))}\n  the checkpoint has {_shorten(list(tensors))}\n'
            "Set prefix= to what stands before the model's names in the checkpoint, or build the model it comes from."
        )

    # Beside a bare backbone's own names, what a checkpoint holds is not the backbone's but some head's.
    own_parts = {name.split('.')[0] for name in own}

    def of_backbone(names: Iterable[str], optional: re.Pattern | None = None) -> list[str]:
        inside = (n for n in names if (n.startswith(backbone) if backbone else n.split('.')[0] in own_parts))
        return [n for n in inside if optional is None or not optional.search(n)]

    wrong = [
        (of_backbone(report.missing, _MAY_LACK), 'are missing from the checkpoint'),
        (of_backbone(report.unexpected, _MAY_BRING), 'of the checkpoint have no place in it'),
        (
            [f'{n} {tuple(tensors[n].shape)} for {tuple(own[n].shape)}' for n in of_backbone(report.reshaped)],
            'have another shape',
        ),
    ]
    if any(names for names, _ in wrong):
        details = '\n'.join(f'  {len(names)} {what}: {_shorten(names)}' for names, what in wrong if names)
        raise CheckpointError(
            f'{report.source} does not fit the backbone; it was made with another one:\n{details}\n'
            'Compare arch, patch_size, in_channels, qk_norm, mlp and layer_scale_init with the config that made it.'
        )
    if strict and (report.missing or report.unexpected or report.reshaped):
        raise CheckpointError(f'{report.source} differs from the model, and every weight is needed here.\n{report}')


def _shorten(names: list[str], limit: int = 8) -> str:
    return ', '.join(names[:limit]) + (f', ... ({len(names) - limit} more)' if len(names) > limit else '')
