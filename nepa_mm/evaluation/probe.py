"""Probes of every layer and pooling: k-NN, linear, effective rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .features import Item, Layer
from .knn import accuracy, knn_votes
from .linear_probe import WEIGHT_DECAYS, choose_weight_decay, fit_linear_probe
from .rankme import effective_rank

QUERIES = 1024


@dataclass(frozen=True)
class FeatureSet:
    """Pooled features of a set of images.

    Args:
        arrays (Mapping[tuple, np.ndarray]): (N, D) per (layer, pooling), in memory or mapped from files.
        labels (np.ndarray): (N,), int64.
    """

    arrays: Mapping[Item, np.ndarray]
    labels: np.ndarray

    def tensor(self, item: Item, device: str | torch.device = 'cpu') -> Tensor:
        """Features (N, D) of a layer and pooling, fp32."""
        return torch.from_numpy(np.array(self.arrays[item], dtype=np.float32)).to(device)

    def label_tensor(self, device: str | torch.device = 'cpu') -> Tensor:
        """Labels (N,)."""
        return torch.from_numpy(self.labels).to(device)


@dataclass
class ProbeResult:
    """What was read from one layer and pooling; accuracies in percent.

    Args:
        layer (int | str): Index as in ``out_indices``, or 'embed'.
        pooling (str): See :func:`~nepa_mm.evaluation.pool_tokens`.
        effective_rank (float): Of the training features.
        knn (dict): Per k the top-1 and top-5 accuracy (top-5 is None for five classes or fewer).
        linear (tuple, optional): The same of the linear probe; None if it was not fitted.
        weight_decay (float, optional): Of the linear probe.
        held_out (float, optional): Accuracy on the held-out part of the training set by which the weight decay was
            chosen; layers can be compared by it without looking at the validation set.
        converged (bool, optional): Whether the linear probe's solver came to its end.
    """

    layer: Layer
    pooling: str
    effective_rank: float
    knn: dict[int, tuple[float, float | None]] = field(default_factory=dict)
    linear: tuple[float, float | None] | None = None
    weight_decay: float | None = None
    held_out: float | None = None
    converged: bool | None = None


def probe_item(
    train: FeatureSet,
    val: FeatureSet,
    item: Item,
    num_classes: int,
    ks: Sequence[int] = (),
    linear: bool = False,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    seed: int = 0,
    device: str | torch.device = 'cpu',
) -> ProbeResult:
    """Probe one layer and pooling.

    Args:
        train (FeatureSet): What the probes learn from.
        val (FeatureSet): What they are scored on, and nothing else: no setting is chosen on it.
        item (tuple): Layer and pooling.
        num_classes (int): Number of classes.
        ks (Sequence[int]): Numbers of neighbours of the k-NN classifier; none for no k-NN. Defaults to ().
        linear (bool): Fit a linear probe. Defaults to False.
        weight_decays (Sequence[float]): Of the linear probe; several are compared on a held-out fifth of ``train``, and
            the best is fitted again on all of it.
        seed (int): Of that split. Defaults to 0.
        device (str | torch.device): Where to compute. Defaults to 'cpu'.

    Returns:
        ProbeResult: Ranks and accuracies.
    """
    x, y = train.tensor(item, device), train.label_tensor(device)
    queries, truth = val.tensor(item, device), val.label_tensor(device)
    result = ProbeResult(*item, effective_rank=effective_rank(x))
    if ks:
        parts = [knn_votes(x, y, part, num_classes, ks) for part in queries.split(QUERIES)]
        result.knn = {k: _top(torch.cat([votes[k] for votes in parts]), truth) for k in ks}
    if linear:
        weight_decay = weight_decays[0]
        if len(weight_decays) > 1:
            weight_decay, result.held_out = choose_weight_decay(x, y, num_classes, weight_decays, seed)
        probe = fit_linear_probe(x, y, num_classes, weight_decay)
        result.linear = _top(probe(queries), truth)
        result.weight_decay, result.converged = weight_decay, probe.converged
    return result


def _top(scores: Tensor, labels: Tensor) -> tuple[float, float | None]:
    return accuracy(scores, labels), accuracy(scores, labels, 5) if scores.shape[1] > 5 else None
