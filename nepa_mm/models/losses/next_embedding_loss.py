"""The next-embedding loss, with each ingredient that the paper ablates as a switch."""

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

DISTANCES = ('cosine', 'mse', 'smooth_l1')


@MODELS.register_module()
class NextEmbeddingLoss(nn.Module):
    """Distance between the prediction made at each position and the embedding at the next one.

    With the defaults this is NEPA's objective: the mean over positions of ``-cos(h_t, stopgrad(z_{t+1}))``. The
    sequence starts with BOS, so an image of T patches has T predictions and the first patch is predicted from BOS alone
    (the release; the paper's formula starts one later). Computed in fp32 whatever the autocast.

    Source: NEPA (arXiv 2512.16922), section 3 and table 1a.

    Args:
        shift (bool): Compare position t with t + 1. False compares each position, BOS too, with its own embedding: the
            paper's ablation, which learns nothing of use. Defaults to True.
        stop_gradient (bool): Detach the targets. False collapses: the paper's ablation. Defaults to True.
        distance (str): 'cosine' (negative cosine similarity, in [-1, 1]), or 'mse' / 'smooth_l1' on the embeddings as
            they are. Defaults to 'cosine'.
        loss_weight (float): Factor on the result. Defaults to 1.

    Raises:
        ValueError: ``distance`` is unknown.
    """

    def __init__(
        self, shift: bool = True, stop_gradient: bool = True, distance: str = 'cosine', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        if distance not in DISTANCES:
            raise ValueError(f'NextEmbeddingLoss: distance={distance!r} is unknown; choose one of {list(DISTANCES)}.')
        self.shift = shift
        self.stop_gradient = stop_gradient
        self.distance = distance
        self.loss_weight = loss_weight

    def forward(self, prediction: Tensor, embeddings: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            prediction (Tensor): (B, 1 + T, D), BOS first.
            embeddings (Tensor): (B, 1 + T, D), BOS first.

        Returns:
            Tensor: Scalar, fp32.

        Raises:
            ValueError: The shapes differ or hold no position to compare.
        """
        if prediction.shape != embeddings.shape or prediction.ndim != 3 or prediction.shape[1] < 2:
            raise ValueError(
                f'NextEmbeddingLoss: prediction {tuple(prediction.shape)} and embeddings {tuple(embeddings.shape)} '
                'must both be (B, 1 + T, D) with at least one patch.'
            )
        if self.shift:
            prediction, embeddings = prediction[:, :-1], embeddings[:, 1:]
        if self.stop_gradient:
            embeddings = embeddings.detach()
        return self.loss_weight * self.compare(prediction, embeddings)

    def compare(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean distance of tensors of equal shape (..., D), position by position; unweighted, fp32."""
        prediction, target = prediction.float(), target.float()
        if self.distance == 'cosine':
            return -(F.normalize(prediction, dim=-1) * F.normalize(target, dim=-1)).sum(dim=-1).mean()
        if self.distance == 'mse':
            return F.mse_loss(prediction, target)
        return F.smooth_l1_loss(prediction, target)

    def extra_repr(self) -> str:
        return f'shift={self.shift}, stop_gradient={self.stop_gradient}, distance={self.distance!r}'
