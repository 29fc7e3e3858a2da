"""Labelled images for probes."""

from typing import Any

import cv2
from mmengine.dataset import default_collate
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from .errors import ProbeError


def probe_loader(dataset: Dataset, batch_size: int, num_workers: int) -> DataLoader:
    """Every image once, in order, in this process alone: a sampler of mmengine would hand each rank a share.

    The loader has a random generator of its own, so iterating over it leaves the global one where it was.

    Args:
        dataset (Dataset): Data set of mmengine's form, with a pipeline that ends with PackInputs.
        batch_size (int): Images in a batch, all of one size.
        num_workers (int): Processes that load; 0 for none.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=default_collate,
        worker_init_fn=_one_thread,
        generator=Generator().manual_seed(0),
    )


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(1)


def check_same_classes(train: Any, val: Any) -> None:
    """Refuse two data sets whose class indices mean different things, such as folders of which one lacks a class.

    Args:
        train: Data set of mmengine's form.
        val: The other.

    Raises:
        ProbeError: Both name their classes, and not the same ones in the same order.
    """
    first, second = (tuple(dataset.metainfo.get('classes') or ()) for dataset in (train, val))
    if not first or not second or first == second:
        return
    differences = [
        f'{sorted(set(a) - set(b))[:8]} only in the {name} set'
        for a, b, name in ((first, second, 'training'), (second, first, 'validation'))
        if set(a) - set(b)
    ]
    raise ProbeError(
        f'the training set has {len(first)} classes and the validation set {len(second)}, so that a label would mean '
        f'two things: {", ".join(differences) or "the same classes, in another order"}.'
    )
