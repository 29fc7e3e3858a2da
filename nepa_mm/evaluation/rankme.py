"""Effective rank of features: what shows a collapse that a loss does not."""

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(features: Tensor, most: int = 25_600) -> float:
    """Effective rank (RankMe): exp of the entropy of the normalised singular values.

    1 where all features lie on a line through the origin (collapse: also where all are the same), D where all
    directions are equally strong. Source: Garrido et al. (2023), "RankMe", equation 1, over 25,600 images as there.

    Args:
        features (Tensor): (N, D). Fewer than D images bound the rank by their number.
        most (int): Of more images than these, evenly spaced ones count. Defaults to 25,600.

    Returns:
        float: In [1, min(N, D)]; 0 where all features are zero.
    """
    features = features[:: max(1, -(-len(features) // most))].double()
    # Singular values as roots of the smaller Gram matrix's eigenvalues: D x D instead of N x D, and double precision
    # keeps eight digits of them.
    gram = features.T @ features if features.shape[0] >= features.shape[1] else features @ features.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    if singular.sum() == 0:
        return 0.0
    p = singular / singular.sum()
    return torch.special.entr(p).sum().exp().item()
