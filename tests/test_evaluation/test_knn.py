"""k-NN votes against scikit-learn's, and by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from nepa_mm.evaluation import accuracy, knn_votes

CLASSES = 4


@pytest.fixture
def toy():
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(CLASSES, 12, generator=generator)
    labels = torch.randint(CLASSES, (150,), generator=generator)
    features = centres[labels] + 1.5 * torch.randn(150, 12, generator=generator)
    return features[:100], labels[:100], features[100:], labels[100:]


@pytest.mark.parametrize('k', [1, 10, 20, 100])
def test_votes_and_predictions_are_scikit_learns(toy, k):
    train, labels, queries, _ = toy
    votes = knn_votes(train, labels, queries, CLASSES, ks=(k,), temperature=0.07)[k]

    sklearn = KNeighborsClassifier(
        k, metric='cosine', algorithm='brute', weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    sklearn.fit(train.double().numpy(), labels.numpy())
    shares = sklearn.predict_proba(queries.double().numpy())
    ours = votes / votes.sum(dim=1, keepdim=True)
    np.testing.assert_allclose(ours.numpy(), shares, atol=2e-5)
    assert (votes.argmax(dim=1).numpy() == sklearn.predict(queries.double().numpy())).all()


def test_votes_by_hand():
    train = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])  # of any norm: only directions count
    votes = knn_votes(train, torch.tensor([0, 1, 1]), torch.tensor([[5.0, 0.0]]), 2, ks=(2, 3), temperature=0.5)
    assert votes[2][0].tolist() == pytest.approx([math.exp(2.0), 1.0])
    assert votes[3][0].tolist() == pytest.approx([math.exp(2.0), 1.0 + math.exp(-2.0)])


def test_chunks_change_nothing(toy):
    train, labels, queries, _ = toy
    whole = knn_votes(train, labels, queries, CLASSES, ks=(5, 60))
    parts = knn_votes(train, labels, queries, CLASSES, ks=(5, 60), chunk=7)
    for k in whole:
        torch.testing.assert_close(parts[k], whole[k], rtol=1e-5, atol=0)


def test_more_neighbours_than_images_are_refused(toy):
    train, labels, queries, _ = toy
    with pytest.raises(ValueError, match=r'k=\[101\].* 100 train images'):
        knn_votes(train, labels, queries, CLASSES, ks=(10, 101))
    with pytest.raises(ValueError, match='temperature=0'):
        knn_votes(train, labels, queries, CLASSES, ks=(10,), temperature=0.0)


def test_accuracy():
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 0.1, 9.0]])
    labels = torch.tensor([0, 1, 2, 2])
    assert accuracy(scores, labels) == 50
    assert accuracy(scores, labels, 2) == 75
    assert accuracy(scores, labels, 3) == 100
