"""Addressed randomness: what a sample draws depends on seed, epoch and index."""

import itertools
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import BatchSampler, DataLoader, Sampler

from nepa_mm.engine.randomness import AddressedSampler, addressed_sampler, build_dataloader, seed_generators, seed_step


@DATASETS.register_module(force=True)
class DrawingSamples(torch.utils.data.Dataset):
    """Each sample is its index and a number from each generator."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        assert type(index) is int
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()])


@DATA_SAMPLERS.register_module(force=True)
class EachTwice(Sampler):
    """Every sample two times, as repeated augmentation wants it."""

    def __init__(self, dataset, seed):
        self.dataset = dataset

    def __iter__(self):
        return iter([index for index in range(len(self.dataset)) for _ in range(2)])

    def __len__(self):
        return 2 * len(self.dataset)


def loader(sampler='DefaultSampler', workers=0, seed=5, batch_size=3, **kwargs):
    cfg = dict(
        dataset=dict(type='DrawingSamples'),
        sampler=dict(type=sampler) if sampler == 'EachTwice' else dict(type=sampler, shuffle=True),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=dict(type='default_collate'),
        **kwargs,
    )
    return build_dataloader(cfg, seed, diff_rank_seed=False)


def epoch(loader, number=0):
    loader.sampler.set_epoch(number)
    return torch.cat(list(loader))


def by_index(samples):
    return {int(sample[0]): sample for sample in samples}


def test_neither_workers_nor_batches_nor_what_was_drawn_before_change_a_sample():
    expected = epoch(loader(), 2)
    assert sorted(expected[:, 0].tolist()) == list(range(7))
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    assert torch.equal(epoch(loader(workers=1), 2), expected)
    assert torch.equal(epoch(loader(workers=3, batch_size=2), 2), expected)


def test_seed_and_epoch_change_it():
    first = by_index(epoch(loader(), 0))
    for other in (by_index(epoch(loader(), 1)), by_index(epoch(loader(seed=6), 0))):
        for index, sample in other.items():
            assert not (sample[1:] == first[index][1:]).any()


def test_samples_of_an_epoch_draw_different_numbers():
    drawn = epoch(loader())[:, 1:].flatten().tolist()
    assert len(set(drawn)) == len(drawn)


def test_numpy_and_torch_do_not_draw_the_same_numbers():
    """They would from the same seed: both are Mersenne twisters."""

    def low_bits():
        ours = np.random.randint(2**32, size=8, dtype=np.uint32) % 2**16
        return ours.tolist(), torch.empty(8, dtype=torch.int64).random_(2**16).tolist()

    np.random.seed(3), torch.manual_seed(3)
    first, second = low_bits()
    assert first == second
    seed_generators('anything')
    first, second = low_bits()
    assert not set(first) & set(second)


def test_steps_differ_and_repeat():
    def drawn(*address):
        seed_step(*address)
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert drawn('step', 0, 7) == drawn('step', 0, 7)
    for first, other in zip(drawn('step', 0, 7), drawn('step', 0, 8), strict=True):
        assert first != other


def test_a_repeated_sample_draws_anew_each_time():
    samples = epoch(loader('EachTwice'))
    assert len(samples) == 14
    assert samples[::2, 0].tolist() == samples[1::2, 0].tolist() == list(range(7))
    assert not (samples[::2, 1:] == samples[1::2, 1:]).any()
    assert torch.equal(epoch(loader('EachTwice', workers=2)), samples)


def test_an_epoch_goes_on_after_what_is_done():
    whole = epoch(loader(), 3)
    rest = loader(workers=2)
    addressed_sampler(rest).start_inside_epoch(3)
    assert torch.equal(epoch(rest, 3), whole[3:])
    assert torch.equal(epoch(rest, 3), whole)  # once


def stream(loader, samples):
    batches = itertools.islice(iter(loader), samples // loader.batch_size)
    return torch.cat(list(batches))


@pytest.mark.parametrize('workers', [0, 2])
def test_an_endless_sampler_goes_on_after_what_is_done(workers):
    whole = stream(loader('InfiniteSampler'), 21)
    passes = [by_index(part) for part in whole.split(7)]
    assert not any((passes[0][i][1:] == passes[1][i][1:]).any() for i in range(7))
    rest = loader('InfiniteSampler', workers)
    rest.sampler.skip(9)
    assert torch.equal(stream(rest, 12), whole[9:])


def test_epochs_without_a_loop_of_epochs_go_on_after_what_is_done():
    """An iteration-based loop counts 3 + 3 + 3 samples of an epoch of 7 in batches of 3."""
    epochs = loader()
    whole = torch.cat([epoch(epochs, number) for number in range(3)])
    rest = loader()
    rest.sampler.set_epoch(0)
    rest.sampler.skip(4 * 3)  # one epoch and one batch
    assert torch.equal(torch.cat(list(rest)), whole[7 + 3 : 14])
    assert torch.equal(epoch(rest, 1), whole[14:])  # the loop counts from where it was resumed


@pytest.mark.parametrize('kind', ['DefaultSampler', 'InfiniteSampler'])
def test_the_seed_of_the_run_that_is_resumed_counts(kind):
    expected, other = loader(kind, seed=8), loader(kind, seed=1)
    other.sampler.reseed(8)
    assert torch.equal(stream(other, 6), stream(expected, 6))


@pytest.mark.parametrize('workers', [0, 2])
def test_an_endless_sampler_of_upstream_s_cannot_skip(monkeypatch, workers):
    """Its class has no such method; what is skipped and what seed counts is the same."""
    monkeypatch.delattr(InfiniteSampler, 'skip', raising=False)
    whole, other = stream(loader('InfiniteSampler', seed=8), 21), loader('InfiniteSampler', workers, seed=1)
    assert other.sampler.reseed(8) and not other.sampler.reseed(8)
    other.sampler.skip(9)
    assert torch.equal(stream(other, 12), whole[9:])


@pytest.mark.parametrize('kind', ['DefaultSampler', 'InfiniteSampler'])
def test_a_sampler_keeps_a_seed_of_its_own(kind):
    def own(seed):
        sampler = dict(type=kind, shuffle=True, seed=3)
        cfg = dict(dataset=dict(type='DrawingSamples'), collate_fn=dict(type='default_collate'), batch_size=3)
        return build_dataloader(cfg | dict(sampler=sampler), seed, diff_rank_seed=False)

    expected, other = own(8), own(1)
    other.sampler.reseed(8)
    assert other.sampler.sampler.seed == 3
    assert torch.equal(stream(other, 6), stream(expected, 6))


def test_processes_share_the_samples(monkeypatch):
    monkeypatch.setattr('nepa_mm.engine.randomness.get_dist_info', lambda: (1, 2))
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (1, 2))
    # rank 1 of two: its seed is one more, and every second sample is its own
    cfg = dict(
        dataset=dict(type='DrawingSamples'),
        sampler=dict(type='InfiniteSampler', shuffle=True),
        batch_size=2,
        collate_fn=dict(type='default_collate'),
    )
    own = stream(build_dataloader(cfg, 6, diff_rank_seed=True), 6)
    monkeypatch.undo()
    both = stream(loader('InfiniteSampler', batch_size=2), 12)
    assert torch.equal(own, both[1::2])


def test_custom_batches_and_built_loaders_are_let_through():
    class Backwards(BatchSampler):
        def __iter__(self):
            return iter([[2, 1], [0]])

    built = DataLoader([1, 2, 3], batch_size=2)
    assert build_dataloader(built, 0, False) is built
    assert addressed_sampler(built) is None
    custom = loader(batch_sampler=dict(type=Backwards, drop_last=False))
    assert addressed_sampler(custom) is None
    assert [batch[:, 0].tolist() for batch in custom] == [[2, 1], [0]]


def test_hooks_see_the_sampler_inside():
    sampler = loader().sampler
    assert isinstance(sampler, AddressedSampler)
    assert (sampler.shuffle, len(sampler)) == (True, 7)
    with pytest.raises(AttributeError, match='no attribute'):
        _ = sampler.nonsense
