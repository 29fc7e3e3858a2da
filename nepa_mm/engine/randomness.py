"""Addressed randomness: what is drawn for a sample or a step depends on where it stands in the run, on nothing else.

A sampler's indices carry the seed and the epoch to the worker that loads them, and the generators of Python, numpy and
torch are set from (seed, epoch, index) before a sample is made. So augmentation depends neither on the number of
workers nor on where a run was cut and resumed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.device import get_device
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, Sampler

from .stopped_workers import keep_from_signals


def seed_generators(*address: Any) -> None:
    """Set the generators of Python, numpy and torch (on the CPU) to a state that only the address decides; 10 us.

    Args:
        *address (Any): What tells this place from all others, such as ('sample', seed, epoch, index).
    """
    digest = hashlib.blake2b(repr(address).encode(), digest_size=16).digest()
    random.seed(digest[:8])
    # Different seeds: numpy and torch would draw the same numbers from the same one.
    np.random.seed(int.from_bytes(digest[8:12], 'little'))
    torch.default_generator.manual_seed(int.from_bytes(digest[12:], 'little'))


def seed_step(*address: Any) -> None:
    """Set all generators of the training process, those of its accelerator too.

    Args:
        *address (Any): As in :func:`seed_generators`.
    """
    seed_generators(*address)
    if get_device() != 'cpu':  # without one torch notes each call for later, which takes longer than all the rest
        torch.manual_seed(random.getrandbits(63))


class Address(int):
    """Index of a sample that knows in which draw of it it stands.

    Args:
        index (int): The index.
        draw (tuple): Seed and epoch, and what else tells this draw of the sample from others.
    """

    draw: tuple

    def __new__(cls, index: int, draw: tuple) -> Address:
        """Make the index."""
        self = super().__new__(cls, index)
        self.draw = draw
        return self

    def __reduce__(self) -> tuple:
        """Keep the draw on the way to a worker."""
        return Address, (int(self), self.draw)


class FetchAddressed:
    """Loads the samples of a batch, each with the generators set to its address.

    It is what a :class:`torch.utils.data.DataLoader` calls if a data set has it as ``__getitems__``, so that the data
    set itself stays what the config names.

    Args:
        dataset: A map-style data set.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: list[int]) -> list:
        """Load samples.

        Args:
            indices (list[int]): From an :class:`AddressedSampler`; for others no generator is set.

        Returns:
            list: The samples.
        """
        samples = []
        for index in indices:
            if isinstance(index, Address):
                seed_generators('sample', *index.draw, int(index))
                samples.append(self.dataset[int(index)])
            else:
                samples.append(self.dataset[index])
        return samples


class AddressedSampler(Sampler):
    """Wraps the sampler that a config names: the same indices in the same order, each as an :class:`Address`.

    - ``DefaultSampler``: (seed, epoch). A run can go on inside an epoch.
    - ``InfiniteSampler``: (seed, pass through the data).
    - Any other may want the same image several times in an epoch, differently augmented: (seed, epoch, rank, position).

    Args:
        dataset: The data set.
        sampler (dict or Sampler): The sampler or its config.
        seed (int): Seed of the run, the same on all processes.
    """

    def __init__(self, dataset: Any, sampler: dict | Sampler, seed: int) -> None:
        if isinstance(sampler, dict):
            sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.sampler: Any = sampler
        self.seed = seed
        # In the counting of a loop, which takes the last batch of an epoch for a full one.
        self.samples_per_epoch = len(sampler)  # type: ignore[arg-type]
        self.rank, self.world_size = get_dist_info()
        self._epoch = 0
        self._past_epochs = 0
        self._start = 0

    def __iter__(self) -> Iterator[Address]:
        """Yield indices with their addresses."""
        start, self._start = self._start, 0
        if type(self.sampler) is InfiniteSampler:
            size = self.sampler.size
            for position, index in enumerate(self.sampler, start):
                yield Address(index, (self.seed, (position * self.world_size + self.rank) // size))
            return
        draw: tuple = (self.seed, self._epoch)
        known = type(self.sampler) is DefaultSampler
        for position, index in islice(enumerate(self.sampler), start, None):
            yield Address(index, draw if known else (*draw, self.rank, position))

    def __len__(self) -> int:
        """Length of the wrapped sampler, also where a run goes on inside an epoch."""
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        """Whatever else a hook wants of the sampler."""
        if name == 'sampler':
            raise AttributeError(name)  # not built yet
        return getattr(self.sampler, name)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which decides the order.

        Args:
            epoch (int): Its number, in this run or, after :meth:`skip`, since the place skipped to.
        """
        self._epoch = self._past_epochs + epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(self._epoch)

    def start_inside_epoch(self, num_samples: int) -> None:
        """Leave out the first samples of the next epoch.

        Args:
            num_samples (int): How many, on this process.
        """
        self._start = num_samples

    def reseed(self, seed: int) -> bool:
        """Take the seed of the run that is resumed.

        Args:
            seed (int): The seed.

        Returns:
            bool: Whether it is another one.
        """
        before, self.seed = self.seed, seed
        if before == seed:
            return False
        if getattr(self.sampler, 'seed', None) == before:  # not one of its own, from the config
            self.sampler.seed = seed
        if type(self.sampler) is InfiniteSampler:
            self._begin_stream(0)  # it was begun with the seed before
        return True

    def skip(self, num_samples: int) -> None:
        """Begin where a run that is resumed has stopped; called once, before iterating.

        Args:
            num_samples (int): Samples that this process has used since the beginning, in whole batches.
        """
        if type(self.sampler) is InfiniteSampler:
            self._begin_stream(num_samples)
            self._start = num_samples
            return
        self._past_epochs, self._start = divmod(num_samples, self.samples_per_epoch)
        self.set_epoch(0)

    def _begin_stream(self, at: int) -> None:
        # What InfiniteSampler.skip of onedl-mmengine does; upstream's class has no such method.
        self.sampler.indices = islice(self.sampler._indices_of_rank(), at, None)


def build_dataloader(dataloader: DataLoader | dict, seed: int, diff_rank_seed: bool) -> DataLoader:
    """Build a data loader whose randomness is addressed and whose workers outlive a signal to the run.

    Args:
        dataloader (DataLoader or dict): The config. A loader that is built already comes back as it is, and its
            randomness is not addressed.
        seed (int): The seed of this process.
        diff_rank_seed (bool): Whether ``seed`` differs between processes by their rank.

    Returns:
        DataLoader: The loader.
    """
    if isinstance(dataloader, DataLoader):
        return dataloader
    common = seed - get_dist_info()[0] if diff_rank_seed else seed
    sampler = dict(type=AddressedSampler, sampler=dataloader['sampler'], seed=common)
    loader = Runner.build_dataloader({**dataloader, 'sampler': sampler}, seed, diff_rank_seed)
    loader.dataset.__getitems__ = FetchAddressed(loader.dataset)
    keep_from_signals(loader)
    found = addressed_sampler(loader)
    if found is not None and loader.batch_sampler is not None:
        found.samples_per_epoch = len(loader) * loader.batch_sampler.batch_size
    return loader


def addressed_sampler(loader: DataLoader) -> AddressedSampler | None:
    """Find the addressed sampler of a data loader whose batches have one fixed size.

    Args:
        loader (DataLoader): The loader.

    Returns:
        AddressedSampler or None: None where another kind of batch sampler decides what a batch is.
    """
    batches = loader.batch_sampler
    sampler = batches.sampler if type(batches) is BatchSampler else loader.sampler
    return sampler if isinstance(sampler, AddressedSampler) else None
