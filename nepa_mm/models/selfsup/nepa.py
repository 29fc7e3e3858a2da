"""NEPA: next-embedding predictive autoregression, as an mmpretrain algorithm."""

from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import Tensor, nn

from ...checkpoints import init_weights_checked


@MODELS.register_module()
class NEPA(BaseSelfSupervisor):
    """Embed the patches, predict each next embedding, compare.

    No decoder, no tokenizer, no negatives, no momentum teacher: the backbone is the whole model, and its head has no
    parameters. Source: NEPA (arXiv 2512.16922), section 3.

    Args:
        backbone (dict | nn.Module): Config of a backbone with ``predict_next``, such as ``dict(type='NEPAViT')``. Where
            the config says nothing of ``causal``, it is set to True; an explicit False is obeyed (the paper's
            ablation).
        head (dict | nn.Module, optional): Defaults to ``dict(type='NEPAHead')``.
        data_preprocessor (dict | nn.Module, optional): Defaults to ``AsyncSelfSupDataPreprocessor`` with the release's
            normalisation: RGB, mean = std = 127.5.
        init_cfg (dict, optional): As in mmengine.

    Raises:
        TypeError: The backbone has no ``predict_next``.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not isinstance(backbone, nn.Module):
            backbone = dict(causal=True) | dict(backbone)
        if data_preprocessor is None:
            data_preprocessor = dict(
                type='AsyncSelfSupDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True
            )
        super().__init__(
            backbone=backbone,
            head=head or dict(type='NEPAHead'),
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if not hasattr(self.backbone, 'predict_next'):
            raise TypeError(
                f'NEPA: backbone {type(self.backbone).__name__} has no predict_next(images), which returns '
                "(prediction, embeddings); use dict(type='NEPAViT', ...)."
            )
        causal = getattr(self.backbone, 'causal', True)
        attention = 'causal' if causal else 'bidirectional (an ablation: causal=False in the config)'
        print_log(f'NEPA pretrains with {attention} attention.', logger='current')

    def init_weights(self) -> None:
        """Hook of mmengine: a ``Pretrained`` entry of ``init_cfg`` loads through the checked loader."""
        init_weights_checked(self, super().init_weights)

    def loss(self, inputs: Tensor, data_samples: list | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """The loss and the collapse figures of a batch.

        Args:
            inputs (Tensor): Images (B, C, H, W), normalised, of whole patches.
            data_samples (list, optional): Not used: there are no labels.
            **kwargs (Any): Not used; mmpretrain's loops may pass more.

        Returns:
            dict[str, Tensor]: See :meth:`nepa_mm.models.NEPAHead.loss`.
        """
        prediction, embeddings = self.backbone.predict_next(inputs)
        return self.head.loss(prediction, embeddings)
