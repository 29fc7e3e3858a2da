"""The one loader through which weights enter a model: it reports what it did and refuses what does not fit."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from . import patch_embed
from .load_report import LoadReport, shorten
from .reader import read_checkpoint
from .recorded_settings import check_recorded_settings
from .release_keys import from_release, is_release
from .sources import RELEASE_EMA_WEIGHTS, RELEASE_WEIGHTS, CheckpointError, fetch

_QK_NORM = re.compile(r'layers\.\d+\.attn\.[qk]_norm\.weight$')
# A backbone may lack or bring these without being another one: the masking ablation's token, and the final norm, which
# a model with `final_norm=False` leaves unused (but which no model may miss).
_MAY_LACK = re.compile(r'(^|\.)mask_token$')
_MAY_BRING = re.compile(r'(^|\.)(mask_token|norm\.(weight|bias))$')
# What a checkpoint may carry before the names of the module that is loaded (besides DDP's `module.`).
_WRAPPERS = ('', 'backbone.')
WEIGHTS = ('raw', 'ema')


def load_weights(
    module: nn.Module,
    checkpoint: str | Path,
    prefix: str | None = None,
    weights: str = 'raw',
    strict: bool = False,
    map_location: Any = 'cpu',
    resample_patch_embed: bool = False,
) -> LoadReport:
    """Load a checkpoint into a module.

    Args:
        module (nn.Module): A backbone or a whole model.
        checkpoint (str | Path): File, release directory, ``hf://OWNER/NAME[@REVISION]`` or URL; see
            :func:`read_checkpoint`.
        prefix (str, optional): Take only what stands under this prefix, and strip it. Defaults to None: find it.
        weights (str): 'raw' or 'ema', for a checkpoint that holds both. Defaults to 'raw', as the release transfers.
        strict (bool): Raise on any difference. Defaults to False.
        map_location: As in ``torch.load``.
        resample_patch_embed (bool): See :func:`load_state_dict`. Defaults to False.

    Returns:
        LoadReport: What was loaded and what was not.

    Raises:
        CheckpointError: See :func:`read_checkpoint` and :func:`load_state_dict`.
    """
    _check_weights(weights)
    loaded, source = read_weights(checkpoint, weights, map_location)
    return load_state_dict(module, loaded['state_dict'], source, prefix, strict, resample_patch_embed, loaded)


def _check_weights(weights: str) -> None:
    if weights not in WEIGHTS:
        raise CheckpointError(f'weights={weights!r} is unknown; choose one of {list(WEIGHTS)}.')


def read_weights(
    checkpoint: str | Path, weights: str | None = None, map_location: Any = 'cpu'
) -> tuple[dict[str, Any], str]:
    """Read a checkpoint's raw or EMA weights.

    Args:
        checkpoint (str | Path): See :func:`read_checkpoint`. A release directory or hub repository keeps the two in
            files of their own.
        weights (str, optional): 'raw' or 'ema'. Defaults to None: what its owner evaluated, which is the average where
            a run's checkpoint has one, and ``model.safetensors`` of a release directory.
        map_location: As in ``torch.load``.

    Returns:
        tuple[dict[str, Any], str]: The checkpoint with these weights alone, under ``state_dict``; and how to call them
        in a report.

    Raises:
        CheckpointError: See :func:`read_checkpoint`; or it does not hold these weights.
    """
    if weights is not None:
        _check_weights(weights)
    path = fetch(checkpoint, files=(RELEASE_EMA_WEIGHTS if weights == 'ema' else RELEASE_WEIGHTS,))
    if path.is_dir():
        if weights == 'ema':
            path = path / RELEASE_EMA_WEIGHTS
            if not path.is_file():
                raise CheckpointError(
                    f"{checkpoint} has no {RELEASE_EMA_WEIGHTS}, which holds EMA weights; use weights='raw'."
                )
        return read_checkpoint(path, map_location), f'{checkpoint} ({weights or "raw"} weights)'
    loaded = read_checkpoint(path, map_location)
    weights = weights or ('ema' if 'ema_state_dict' in loaded else 'raw')
    state_dict, source = select_weights(loaded, weights, str(checkpoint))
    rest = {key: value for key, value in loaded.items() if key != 'ema_state_dict'}
    return rest | dict(state_dict=state_dict), source


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
    resample_patch_embed: bool = False,
    checkpoint: Mapping[str, Any] | None = None,
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
        resample_patch_embed (bool): Resample a patch embedding of another patch size (see
            :func:`nepa_mm.checkpoints.patch_embed.resample_patch_embed`); else it is refused. Defaults to False.
        checkpoint (Mapping[str, Any], optional): What the tensors came in; the config that its run wrote into it is
            compared with the module (:func:`nepa_mm.checkpoints.recorded_settings.check_recorded_settings`).

    Returns:
        LoadReport: What was loaded and what was not.

    Raises:
        CheckpointError: Nothing matches, the backbone is another one, a value is NaN or infinite, or there is any
            difference and ``strict`` is set.
    """
    module = module.module if is_model_wrapper(module) else module  # type: ignore[assignment]
    own = module.state_dict()
    backbone = _backbone_prefix(module)
    tensors = to_own_names(module, state_dict, source, prefix)

    report = LoadReport(source)
    for name, tensor in own.items():
        if name in tensors and resample_patch_embed and _of_another_patch_size(name, tensors, own):
            tensors[name] = patch_embed.resample_patch_embed(tensors[name], tensor.shape[-1])
            report.resampled.append(name)
        elif name in tensors:
            (report.matched if tensors[name].shape == tensor.shape else report.reshaped).append(name)
        elif _QK_NORM.search(name):
            report.filled.append(name)
        elif not name.endswith('num_batches_tracked'):
            report.missing.append(name)
    report.unexpected = [name for name in tensors if name not in own]
    report.altered = check_recorded_settings(module, checkpoint or {}, source)
    _refuse_unnoticed_scratch(report, own, tensors, backbone, strict)

    chosen = {name: tensors[name] for name in report.matched + report.resampled}
    broken = [n for n, v in chosen.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if broken:  # a mask with -inf is not, where the module has built one itself
        buffers = dict(module.named_buffers())
        broken = [n for n in broken if n not in buffers or buffers[n].is_meta or buffers[n].isfinite().all()]
    if broken:
        raise CheckpointError(
            f'{source} holds NaN or infinite values in {len(broken)} tensors ({shorten(broken)}): the run that wrote '
            'it had diverged. Take an earlier checkpoint.'
        )
    chosen |= {name: torch.ones_like(own[name]) for name in report.filled}
    module.load_state_dict(chosen, strict=False)
    return report


def to_own_names(
    module: nn.Module, state_dict: Mapping[str, Tensor], source: str = 'a state dict', prefix: str | None = None
) -> dict[str, Tensor]:
    """Tensors of a checkpoint under the names that a module has for them.

    Args:
        module (nn.Module): See :func:`load_state_dict`, also for the other arguments.
        state_dict (Mapping[str, Tensor]): Our names or the release's, wrapped or not.
        source (str): Named in errors.
        prefix (str, optional): Take only what stands under this prefix.

    Returns:
        dict[str, Tensor]: Its tensors, renamed. What has no place in the module keeps its name.

    Raises:
        CheckpointError: Nothing stands under ``prefix``, or there are keys of the release that NEPAViT does not have.
    """
    tensors = {k.removeprefix('module.'): v for k, v in state_dict.items() if isinstance(v, Tensor)}
    if is_release(tensors):
        try:
            renamed = from_release(tensors)
        except KeyError as error:
            raise CheckpointError(f'{source} is not what nepa_mm can build. {error.args[0]}') from error
        # A release file is a backbone, and perhaps its classifier.
        backbone = _backbone_prefix(module)
        tensors = {k if k.startswith('head.') else backbone + k: v for k, v in renamed.items()}
    return _strip(tensors, module.state_dict(), prefix, source)


def _backbone_prefix(module: nn.Module) -> str:
    return 'backbone.' if hasattr(module, 'backbone') else ''


def _of_another_patch_size(name: str, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    return patch_embed.is_weight(name) and patch_embed.can_resample(tensors[name], own[name].shape)


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
            f'  The model has {shorten(list(own))}\n  the checkpoint has {shorten(list(tensors))}\n'
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
        details = '\n'.join(f'  {len(names)} {what}: {shorten(names)}' for names, what in wrong if names)
        raise CheckpointError(
            f'{report.source} does not fit the backbone; it was made with another one:\n{details}\n'
            'Compare arch, patch_size, in_channels, qk_norm, mlp and layer_scale_init with the config that made it.'
            + (
                '\nWhere only the patch size differs, resample_patch_embed=True (in init_cfg) resamples.'
                if any(_of_another_patch_size(name, tensors, own) for name in report.reshaped)
                else ''
            )
        )
    if strict and (report.missing or report.unexpected or report.reshaped):
        raise CheckpointError(f'{report.source} differs from the model, and every weight is needed here.\n{report}')
