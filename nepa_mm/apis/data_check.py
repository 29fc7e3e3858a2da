"""Looking for a config's data before anything is built, so that a wrong folder is told in a line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .cli import UsageError

# What mmpretrain's CustomDataset takes for images.
EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')


def check_data(cfg: Config, loaders: Sequence[str]) -> None:
    """Refuse local data folders that do not exist, and folders of images without one.

    The hosts stumble over them inside their loaders.

    Args:
        cfg (Config): The config.
        loaders (Sequence[str]): Which of its data loaders.

    Raises:
        UsageError: With the data set and what to do.
    """
    leafs = [leaf for name in loaders for leaf in _leafs((cfg.get(name) or {}).get('dataset'), f'{name}.dataset')]
    missing = [(key, dataset['data_root']) for key, dataset in leafs if not _is_there(dataset.get('data_root'))]
    if missing:
        key, root = missing[0]
        keys = [key for key, _ in missing]
        if cfg.get('data_root') == root and _sets_data_root(cfg.filename):
            raise UsageError(
                f'data_root={root!r} does not exist (seen from {os.getcwd()}); put the data there, or set data_root at '
                f'the top of {cfg.filename}, for {" and ".join(keys)}'
            )
        options = ' '.join(f'{key}.data_root=...' for key in keys)
        raise UsageError(
            f'{key}.data_root={root!r} does not exist (seen from {os.getcwd()}); put the data there, or name its '
            f'folder: --cfg-options {options}'
        )
    for key, dataset in leafs:
        _check_images(key, dataset)


def _leafs(dataset: Any, key: str) -> Iterator[tuple[str, dict]]:
    """Configs of data sets below what wraps them, such as RepeatDataset and ConcatDataset, and where they stand."""
    if not isinstance(dataset, dict):
        return
    yield key, dataset
    yield from _leafs(dataset.get('dataset'), f'{key}.dataset')
    for i, part in enumerate(dataset.get('datasets') or ()):
        yield from _leafs(part, f'{key}.datasets.{i}')


def _is_there(root: Any) -> bool:
    return not isinstance(root, str) or '://' in root or os.path.exists(root)


def _sets_data_root(file: str | None) -> bool:
    """Whether a config file itself sets a variable `data_root`, from which its data sets are made."""
    return file is not None and re.search(r'^data_root *=', Path(file).read_text(), re.MULTILINE) is not None


def _check_images(key: str, dataset: dict) -> None:
    """Refuse a folder without images; mmpretrain ends in numpy, over an empty list."""
    kind = dataset.get('type')
    if getattr(kind, '__name__', str(kind)).rpartition('.')[2] != 'CustomDataset' or dataset.get('ann_file'):
        return
    prefix = dataset.get('data_prefix') or ''
    prefix = prefix.get('img_path', '') if isinstance(prefix, dict) else prefix
    folder = os.path.join(dataset.get('data_root') or '', prefix)
    extensions = tuple(ending.lower() for ending in dataset.get('extensions', EXTENSIONS))
    if not folder or '://' in folder:
        return
    change = f'put images there, or name their folder: --cfg-options {key}.data_root=...'
    if not os.path.isdir(folder):
        raise UsageError(f'{key}: {folder!r} is not a folder (seen from {os.getcwd()}); {change}')
    found = (name for _, _, names in os.walk(folder, followlinks=True) for name in names)
    if not any(name.lower().endswith(extensions) for name in found):
        raise UsageError(f'{key}: no image ({", ".join(extensions)}) in {folder!r} or below; {change}')
