"""Features kept on disk, under a key of everything they depend on."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from torch import nn

from .features import Item, layer_name

LABELS = 'labels.npy'
FACTS = 'facts.json'


class FeatureCache:
    """A folder of memory-mapped arrays, one per (layer, pooling).

    Its name holds a hash of the facts, so features of other weights, images or settings are never taken for these:
    they lie in another folder. An array gets its name when it is complete; a run that was cut short leaves nothing that
    is read.

    Args:
        root (str | Path): Where the folders lie.
        name (str): Beginning of the folder's name, such as 'train'.
        facts (Mapping[str, Any]): What the features depend on, as JSON can hold it; written beside them.
    """

    def __init__(self, root: str | Path, name: str, facts: Mapping[str, Any]) -> None:
        text = json.dumps(facts, sort_keys=True, indent=1)
        self.root = Path(root)
        self.folder = self.root / f'{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}'
        self._facts = text

    def missing(self, items: Sequence[Item]) -> list[Item]:
        """Those of the items that have to be computed; all of them where there are no labels yet."""
        if not (self.folder / LABELS).is_file():
            return list(items)
        return [item for item in items if not self._path(item).is_file()]

    @contextmanager
    def writing(self, items: Sequence[Item], shape: tuple[int, int], dtype: str) -> Iterator[dict[Item, np.ndarray]]:
        """New arrays (N, D) mapped to files, which get their names when the block ends without an error.

        Args:
            items (Sequence[tuple]): Pairs (layer, pooling).
            shape (tuple[int, int]): (N, D) of each.
            dtype (str): 'float16' or 'float32'.

        Raises:
            OSError: The disk has no room for them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        need = len(items) * shape[0] * shape[1] * np.dtype(dtype).itemsize
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise OSError(
                f'{self.folder} has {free / 1e9:.1f} GB free, and the features of {len(items)} layers and poolings '
                f'need {need / 1e9:.1f} GB; name fewer layers, store float16, or put the cache on another disk.'
            )
        parts = {item: self._path(item).with_suffix(f'.partial-{os.getpid()}') for item in items}
        try:
            arrays = {
                item: np.lib.format.open_memmap(part, mode='w+', dtype=dtype, shape=shape)
                for item, part in parts.items()
            }
            yield dict(arrays)
            for item, part in parts.items():
                arrays.pop(item).flush()
                part.replace(self._path(item))
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)

    def write_labels(self, labels: np.ndarray) -> None:
        """Write the labels (N,), which make the folder one that is read."""
        part = self.folder / f'labels.partial-{os.getpid()}'
        with part.open('wb') as stream:
            np.save(stream, labels)
        (self.folder / FACTS).write_text(self._facts)
        part.replace(self.folder / LABELS)

    def read(self, item: Item) -> np.ndarray:
        """The features (N, D) of a layer and pooling, mapped from their file."""
        return np.load(self._path(item), mmap_mode='r')

    def read_labels(self) -> np.ndarray:
        """The labels (N,)."""
        return np.load(self.folder / LABELS)

    def _path(self, item: Item) -> Path:
        layer, pooling = item
        return self.folder / f'{layer_name(layer)}-{pooling}.npy'


def hash_weights(module: nn.Module) -> str:
    """Hash of every weight of a module: the same for the same weights, whichever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f'{name}{tuple(tensor.shape)}{tensor.dtype}'.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def hash_samples(dataset: Any) -> str:
    """Hash of a data set's samples: their records, and size and time of their files, so that a changed image counts.

    Where images are not files of their own (rows of a table), the files below ``data_root`` count instead.

    Args:
        dataset: A data set of mmengine's form (``get_data_info(i)``).
    """
    digest = hashlib.sha256()
    # Of a BaseDataset the bare record: a subclass may read the image in get_data_info.
    record = partial(BaseDataset.get_data_info, dataset) if isinstance(dataset, BaseDataset) else dataset.get_data_info
    all_files = True
    for i in range(len(dataset)):
        info = record(i)
        digest.update(repr(sorted((k, v) for k, v in info.items() if k != 'sample_idx')).encode())
        path = info.get('img_path')
        if isinstance(path, str) and os.path.isfile(path):
            digest.update(_stamp(path))
        else:
            all_files = False
    root = getattr(dataset, 'data_root', None)
    if not all_files and root and os.path.isdir(root):
        for file in sorted(Path(root).rglob('*')):
            if file.is_file():
                digest.update(str(file).encode() + _stamp(file))
    return digest.hexdigest()


def _stamp(path: str | Path) -> bytes:
    stat = os.stat(path)
    return f'{stat.st_size} {stat.st_mtime_ns}'.encode()
