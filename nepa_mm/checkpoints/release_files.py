"""The files of a release directory, read and written."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from .reader import read_checkpoint
from .release_keys import is_release
from .sources import (
    RELEASE_CONFIG,
    RELEASE_EMA_WEIGHTS,
    RELEASE_PREPROCESSOR,
    RELEASE_WEIGHTS,
    CheckpointError,
    fetch,
)


@dataclass
class Release:
    """Content of a release directory.

    Args:
        config (dict): ``config.json``.
        weights (dict[str, Tensor]): ``model.safetensors``, under the release's names.
        ema (dict[str, Tensor], optional): ``pytorch_model_ema.bin``.
        preprocessor (dict, optional): ``preprocessor_config.json``.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    ema: dict[str, Tensor] | None = None
    preprocessor: dict[str, Any] | None = None


def read_release(source: str | Path, config: str | Path | None = None) -> Release:
    """Read weights in the release's format, with what stands beside them.

    Args:
        source (str | Path): A directory, ``hf://OWNER/NAME[@REVISION]``, a single file, or the URL of one.
        config (str | Path, optional): A ``config.json``. Defaults to the one beside the weights.

    Returns:
        Release: The content. A single file is taken as it is, without EMA weights.

    Raises:
        CheckpointError: As :func:`nepa_mm.checkpoints.read_checkpoint`; or the names are not the release's, the EMA
        weights are another model's, or there is no readable ``config.json``.
    """
    needed = (RELEASE_WEIGHTS,) if config else (RELEASE_WEIGHTS, RELEASE_CONFIG)
    path = fetch(source, files=needed, optional=(RELEASE_EMA_WEIGHTS, RELEASE_PREPROCESSOR))
    folder = path if path.is_dir() else path.parent
    weights = _tensors(path, f'{source}')
    ema = _tensors(folder / RELEASE_EMA_WEIGHTS, f'{source}/{RELEASE_EMA_WEIGHTS}') if _has_ema(path) else None
    if ema is not None and {k: v.shape for k, v in ema.items()} != {k: v.shape for k, v in weights.items()}:
        raise CheckpointError(f'{source}: {RELEASE_EMA_WEIGHTS} and {RELEASE_WEIGHTS} are not of the same model.')
    config_file = Path(config).expanduser() if config else folder / RELEASE_CONFIG
    if not config_file.is_file():
        raise CheckpointError(
            f'{config_file} does not exist. The weights alone do not tell heads, RoPE and activation: put the '
            f"repository's {RELEASE_CONFIG} beside them, or name it (--config)."
        )
    preprocessor = folder / RELEASE_PREPROCESSOR
    return Release(_json(config_file), weights, ema, _json(preprocessor) if preprocessor.is_file() else None)


def _has_ema(path: Path) -> bool:
    return path.is_dir() and (path / RELEASE_EMA_WEIGHTS).is_file()


def _tensors(path: Path, source: str) -> dict[str, Tensor]:
    weights = read_checkpoint(path)['state_dict']
    if not is_release(weights):
        shown = ', '.join(list(weights)[:3])
        raise CheckpointError(f"{source} is not in the release's format (vit_nepa.*); its keys are {shown}, ...")
    return weights


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f'{path} is no JSON ({error}); copy or download it again.') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds a {type(content).__name__}; expected the keys of a model.')
    return content


def write_release(folder: Path, release: Release) -> None:
    """Write a release into an existing directory.

    Args:
        folder (Path): The directory.
        release (Release): The content.
    """
    save_file({k: v.contiguous() for k, v in release.weights.items()}, folder / RELEASE_WEIGHTS, {'format': 'pt'})
    if release.ema is not None:
        torch.save(release.ema, folder / RELEASE_EMA_WEIGHTS)
    for name, content in ((RELEASE_CONFIG, release.config), (RELEASE_PREPROCESSOR, release.preprocessor)):
        if content is not None:
            (folder / name).write_text(json.dumps(content, indent=2) + '\n')


@contextmanager
def new_file(target: Path, force: bool) -> Iterator[Path]:
    """A path beside ``target`` to write and check; it becomes ``target`` where nothing was raised.

    Args:
        target (Path): A file.
        force (bool): Replace what is there.

    Yields:
        Path: Where to write.

    Raises:
        CheckpointError: ``target`` exists and ``force`` is off.
    """
    if target.exists() and not force:
        raise CheckpointError(f'{target} exists; pass --force to replace it.')
    if target.is_dir():
        raise CheckpointError(f'{target} is a directory; name a file.')
    with temporary_folder(target) as folder:
        yield folder / target.name
        os.replace(folder / target.name, target)


@contextmanager
def new_folder(target: Path, force: bool) -> Iterator[Path]:
    """A directory beside ``target`` to write and check; its files become those of ``target``.

    Args:
        target (Path): A directory.
        force (bool): Replace the files of a release that are there. Others are left alone.

    Yields:
        Path: Where to write.

    Raises:
        CheckpointError: ``target`` is a file, or holds files and ``force`` is off.
    """
    if target.exists() and not target.is_dir():
        raise CheckpointError(f'{target} is a file; name a directory.')
    if target.exists() and any(target.iterdir()) and not force:
        raise CheckpointError(f'{target} exists and is not empty; pass --force to replace the release in it.')
    with temporary_folder(target) as folder:
        yield folder
        target.mkdir(exist_ok=True)
        for name in (RELEASE_WEIGHTS, RELEASE_EMA_WEIGHTS, RELEASE_CONFIG, RELEASE_PREPROCESSOR):
            if (folder / name).exists():
                os.replace(folder / name, target / name)
            else:  # that of another model
                (target / name).unlink(missing_ok=True)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target``, from which a finished file is moved in one step; it does not outlive the block.

    Args:
        target (Path): A file or directory, which need not exist.

    Yields:
        Path: The folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f'.{target.name}.', dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
