"""k-NN classifier on frozen features, exact, with weighted votes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import ProbeError


@torch.no_grad()
def knn_votes(
    train: Tensor,
    train_labels: Tensor,
    queries: Tensor,
    num_classes: int,
    ks: Sequence[int] = (10, 20, 100),
    temperature: float = 0.07,
    chunk: int = 16384,
) -> dict[int, Tensor]:
    """Votes of the nearest training features, by cosine similarity.

    Each of the k nearest votes for its class with weight exp(similarity / temperature). Source: Wu et al. (2018),
    section 3.4, and DINO's evaluation (Caron et al., 2021), which uses temperature .07 and k 10, 20, 100 and 200.

    Args:
        train (Tensor): (N, D).
        train_labels (Tensor): (N,), int64.
        queries (Tensor): (Q, D), on the same device.
        num_classes (int): Number of classes C.
        ks (Sequence[int]): Numbers of neighbours. Defaults to (10, 20, 100).
        temperature (float): Defaults to .07.
        chunk (int): Training features compared at a time, which bounds the memory to Q x chunk similarities; the result
            does not depend on it. Defaults to 16384.

    Returns:
        dict[int, Tensor]: Per k, the votes (Q, C), fp32.

    Raises:
        ProbeError: A k is not in 1..N, or the temperature is not positive.
    """
    wrong = [k for k in ks if not 1 <= k <= len(train)]
    if wrong or not ks:
        raise ProbeError(
            f'k={wrong or list(ks)}: the number of neighbours goes from 1 to the {len(train)} train images.'
        )
    if temperature <= 0:
        raise ProbeError(f'temperature={temperature} is not positive.')
    queries = F.normalize(queries.float(), dim=1)
    most = max(ks)
    best = queries.new_empty(len(queries), 0)
    neighbours = train_labels.new_empty(len(queries), 0)
    for start in range(0, len(train), chunk):
        bank = F.normalize(train[start : start + chunk].float(), dim=1)
        similarity = torch.cat([best, queries @ bank.T], dim=1)  # (Q, most + chunk)
        labels = train_labels[start : start + chunk].expand(len(queries), -1)
        best, order = similarity.topk(min(most, similarity.shape[1]), dim=1)
        neighbours = torch.cat([neighbours, labels], dim=1).gather(1, order)
    weights = (best / temperature).exp()
    votes = {}
    for k in ks:
        votes[k] = queries.new_zeros(len(queries), num_classes).scatter_add_(1, neighbours[:, :k], weights[:, :k])
    return votes


def accuracy(scores: Tensor, labels: Tensor, topk: int = 1) -> float:
    """Share of images, in percent, whose class is among the ``topk`` highest scores.

    Args:
        scores (Tensor): (Q, C).
        labels (Tensor): (Q,).
        topk (int): Defaults to 1.
    """
    hits = scores.topk(topk, dim=1).indices == labels[:, None]
    return 100 * hits.any(dim=1).double().mean().item()
