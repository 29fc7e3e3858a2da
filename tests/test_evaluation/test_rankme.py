"""Effective rank, where it is known."""

import math

import pytest
import torch

from nepa_mm.evaluation import effective_rank


def test_known_ranks():
    assert effective_rank(torch.eye(8)) == pytest.approx(8)
    assert effective_rank(torch.randn(50, 1) * torch.ones(1, 8)) == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.ones(50, 8)) == pytest.approx(1, abs=1e-4), 'the same feature for all: collapse'
    assert effective_rank(torch.zeros(5, 3)) == 0


def test_is_the_entropy_of_the_singular_values():
    """Both Gram matrices: more images than channels, and fewer."""
    for shape in ((40, 6), (6, 40)):
        x = torch.randn(shape)
        s = torch.linalg.svdvals(x.double())
        p = s / s.sum()
        assert effective_rank(x) == pytest.approx(math.exp(-(p * p.log()).sum()), rel=1e-6)


def test_of_many_images_evenly_spaced_ones_count():
    x = torch.randn(25, 4)
    assert effective_rank(x, most=10) == effective_rank(x[::3]) != effective_rank(x)
