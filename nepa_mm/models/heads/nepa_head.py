"""NEPAHead: turns (prediction, embeddings) into the loss and the figures that show collapse."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class NEPAHead(BaseModule):
    """Head of NEPA. It has no parameters: the prediction is the backbone's last hidden state.

    Beside the loss it logs what the loss alone does not show. A healthy run's loss goes towards -1, and so does a
    collapsed one's; the targets tell them apart.

    Args:
        loss (dict): Config of the loss. Defaults to ``dict(type='NextEmbeddingLoss')``.
        init_cfg (dict, optional): As in mmengine.
    """

    def __init__(self, loss: dict | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.loss_module = MODELS.build(loss or dict(type='NextEmbeddingLoss'))

    def loss(self, prediction: Tensor, embeddings: Tensor) -> dict[str, Tensor]:
        """Loss and collapse figures of a batch.

        Args:
            prediction (Tensor): (B, 1 + T, D), BOS first.
            embeddings (Tensor): (B, 1 + T, D), BOS first.

        Returns:
            dict[str, Tensor]: Scalars ``loss``, and those of :meth:`collapse_figures`. Only a name that holds 'loss'
            enters the sum that mmengine minimises.
        """
        return dict(loss=self.loss_module(prediction, embeddings), **self.collapse_figures(embeddings))

    @torch.no_grad()
    def collapse_figures(self, embeddings: Tensor) -> dict[str, Tensor]:
        """What shows collapse, at the cost of one pass over the embeddings.

        Args:
            embeddings (Tensor): (B, 1 + T, D), BOS first.

        Returns:
            dict[str, Tensor]: fp32 scalars

            - ``target_mean_norm``: norm of the mean target direction over the batch, in [0, 1]; its square is the mean
              pairwise cosine of all targets. Near 1: all targets point the same way, and predicting is trivial.
            - ``target_std``: standard deviation of a target's components over the batch, averaged over D. Near 0:
              collapse.
            - ``copy_baseline``: the loss that repeating the current patch's embedding as the prediction of the next one
              would get. A model that does not beat it has learnt nothing about images. (From the second patch on: BOS
              has nothing to copy. NaN for an image of a single patch.)
        """
        targets = embeddings[:, 1:].detach().float()  # (B, T, D)
        return dict(
            target_mean_norm=F.normalize(targets, dim=-1).mean(dim=(0, 1)).norm(),
            # Two passes of simple sums: torch's `std` over rows takes three times as long on a CPU.
            target_std=(targets - targets.mean(dim=(0, 1))).square_().mean(dim=(0, 1)).sqrt().mean(),
            copy_baseline=self.loss_module.loss_weight * self.loss_module.compare(targets[:, :-1], targets[:, 1:]),
        )
