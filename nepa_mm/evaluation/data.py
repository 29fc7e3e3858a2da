"""Labelled images for probes."""

from collections import Counter
from functools import partial
from typing import Any

import cv2
from mmengine.dataset import BaseDataset, default_collate
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


def check_linear_probe(train: Any) -> None:
    """Refuse labels that no linear probe can learn from, before hours are spent on features.

    Args:
        train: Data set of mmengine's form. One that lists no classes (``gt_label``) is let through.

    Raises:
        ProbeError: All images are of one class and no other is named, or no class has two images, of which one is held
            out to choose the weight decay.
    """
    # Of a BaseDataset the bare record: a subclass may read the image in get_data_info.
    record = partial(BaseDataset.get_data_info, train) if isinstance(train, BaseDataset) else train.get_data_info
    labels = [record(i).get('gt_label') for i in range(len(train))]
    if not all(isinstance(label, int) for label in labels):
        return
    counts = Counter(labels)
    if max(max(counts) + 1, len(train.metainfo.get('classes') or ())) < 2:
        raise ProbeError(f'a linear probe needs at least 2 classes, but all {len(labels)} training images are of one.')
    if max(counts.values()) < 2:
        raise ProbeError(
            f'no class of the {len(labels)} training images has two, so none can be held out to choose the weight '
            'decay; label more images, or probe by k-NN alone.'
        )
