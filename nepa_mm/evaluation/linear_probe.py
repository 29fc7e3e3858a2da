"""Linear probe on kept features: the classifier that training a linear head would end at, in seconds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import ProbeError

# As the BatchNorm before MAE's linear head has it (mmpretrain's ClsBatchNormNeck).
EPS = 1e-6
WEIGHT_DECAYS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
HELD_OUT = 0.2


@dataclass(frozen=True)
class LinearProbe:
    """Linear classifier on standardised features.

    Args:
        weight (Tensor): (C, D).
        bias (Tensor): (C,).
        mean (Tensor): (D,), of the training features.
        std (Tensor): (D,), of the training features.
        weight_decay (float): The penalty it was fitted with.
        converged (bool): Whether the solver reached its tolerance before its last iteration.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    weight_decay: float
    converged: bool

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (Q, C) of features (Q, D)."""
        return (features - self.mean) / self.std @ self.weight.T + self.bias


def fit_linear_probe(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    weight_decay: float,
    start: LinearProbe | None = None,
    max_iter: int = 300,
    tolerance: float = 1e-5,
    chunk: int = 65536,
) -> LinearProbe:
    """Multinomial logistic regression on standardised features, by preconditioned L-BFGS over all of them.

    Minimises mean cross-entropy + weight_decay / 2 * |weight|^2, the bias free. That is where SGD with that weight
    decay on a BatchNorm without weights and a linear layer ends, and scikit-learn's ``LogisticRegression`` with
    ``C=1 / (weight_decay * N)``. It is convex: no learning rate, schedule or seed enters the result.

    Features of a network vary a thousand times more in some directions than in others, which makes every first-order
    method crawl. So the solver works in the coordinates in which the curvature at the start is one in all directions;
    the objective, and with it the minimum, stays the same.

    Args:
        features (Tensor): (N, D), fp32 or fp64; the result has its device and dtype.
        labels (Tensor): (N,), int64, in 0..C-1.
        num_classes (int): Number of classes C, at least 2.
        weight_decay (float): Positive.
        start (LinearProbe, optional): Where to start. Defaults to None: zeros.
        max_iter (int): Most iterations of L-BFGS. Defaults to 300.
        tolerance (float): Ends where the objective is within about this of its minimum. Defaults to 1e-5.
        chunk (int): Features whose logits are in memory at a time. Defaults to 65536.

    Returns:
        LinearProbe: The classifier.

    Raises:
        ProbeError: The weight decay is not positive, there is one class, or a label is outside of 0..C-1.
    """
    if weight_decay <= 0:
        raise ProbeError(f'weight_decay={weight_decay} is not positive: separable classes would have no minimum.')
    if num_classes < 2:
        raise ProbeError(f'a linear probe needs at least 2 classes, got {num_classes}.')
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ProbeError(f'labels go from {labels.min()} to {labels.max()}; expected 0..{num_classes - 1}.')
    mean = features.mean(dim=0)
    std = (features.var(dim=0, correction=0) + EPS).sqrt()
    x = (features - mean) / std
    directions, scales = _curvature(x, num_classes, weight_decay, chunk)
    x = x @ (directions * scales)
    penalty = weight_decay * scales.square()
    weight, bias = x.new_zeros(num_classes, x.shape[1]), x.new_zeros(num_classes)
    if start is not None:
        weight, bias = start.weight @ directions / scales, start.bias.clone()
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        # a gradient g is about g^2 / 2 above the minimum where the curvature is one
        tolerance_grad=math.sqrt(2 * tolerance / weight.numel()),
        tolerance_change=0.0,
        history_size=20,
        line_search_fn='strong_wolfe',
    )

    @torch.no_grad()
    def closure() -> Tensor:
        # By hand: autograd would keep the logits of all N images.
        loss = (penalty * weight.square()).sum() / 2
        weight.grad, bias.grad = penalty * weight, torch.zeros_like(bias)
        for part, target in zip(x.split(chunk), labels.split(chunk), strict=True):
            log_p = torch.log_softmax(part @ weight.T + bias, dim=1)
            loss = loss - log_p.gather(1, target[:, None]).sum() / len(x)
            delta = log_p.exp()
            delta.scatter_add_(1, target[:, None], delta.new_full((len(part), 1), -1.0))
            delta /= len(x)
            weight.grad += delta.T @ part
            bias.grad += delta.sum(dim=0)
        return loss

    solver.step(closure)
    closure()
    assert weight.grad is not None and bias.grad is not None
    above = (weight.grad.square().sum() + bias.grad.square().sum()).item() / 2
    bias.grad = None
    weight = weight.detach() * scales @ directions.T
    return LinearProbe(weight, bias, mean, std, weight_decay, converged=above <= 10 * tolerance)


def _curvature(x: Tensor, num_classes: int, weight_decay: float, chunk: int) -> tuple[Tensor, Tensor]:
    """Principal directions (D, D) of standardised features, and per direction what makes the curvature one.

    With all classes equally likely, the objective's curvature along a direction of variance v is v * p * (1 - p), where
    p = 1 / num_classes, and the penalty's weight_decay on top.
    """
    gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.split(chunk):
        gram += part.double().T @ part.double()
    variances, directions = torch.linalg.eigh(gram / len(x))
    p = 1 / num_classes
    scales = (variances.clamp(min=0) * p * (1 - p) + weight_decay).rsqrt()
    return directions.to(x.dtype), scales.to(x.dtype)


def choose_weight_decay(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    seed: int = 0,
) -> tuple[float, float]:
    """Weight decay by accuracy on a held-out fifth of the *training* features.

    Args:
        features (Tensor): (N, D).
        labels (Tensor): (N,).
        num_classes (int): Number of classes.
        weight_decays (Sequence[float]): To choose from. Defaults to powers of ten from 1e-6 to 0.1.
        seed (int): Of the split. Defaults to 0.

    Returns:
        tuple[float, float]: The weight decay (of equally accurate ones that with the lower cross-entropy), and its
        accuracy on the held-out part in percent.

    Raises:
        ProbeError: No class has two images, so nothing can be held out.
    """
    held_out = split_by_class(labels.cpu(), HELD_OUT, seed).to(labels.device)
    fit_on, fit_labels = features[~held_out], labels[~held_out]
    others, other_labels = features[held_out], labels[held_out]
    scores = []
    probe = None
    for weight_decay in sorted(weight_decays, reverse=True):  # each solution starts the next, harder one
        probe = fit_linear_probe(fit_on, fit_labels, num_classes, weight_decay, start=probe)
        logits = probe(others)
        hits = (logits.argmax(dim=1) == other_labels).double().mean().item()
        loss = torch.nn.functional.cross_entropy(logits, other_labels).item()
        scores.append((100 * hits, -loss, weight_decay))
    best = max(scores)
    return best[2], best[0]


def split_by_class(labels: Tensor, share: float, seed: int = 0) -> Tensor:
    """Draw a share of every class, at least one image of a class that has two.

    Args:
        labels (Tensor): (N,), on the CPU.
        share (float): In (0, 1).
        seed (int): Of the draw. Defaults to 0.

    Returns:
        Tensor: (N,) bool, True for what was drawn.

    Raises:
        ProbeError: No class has two images.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        if len(members) > 1:
            order = torch.randperm(len(members), generator=generator)
            drawn[members[order[: max(1, round(share * len(members)))]]] = True
    if not drawn.any():
        raise ProbeError(
            f'no class of the {len(labels)} images has two, so none can be held out; label more images, or give one '
            'weight decay instead of several.'
        )
    return drawn
