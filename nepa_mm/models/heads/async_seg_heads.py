"""mmseg's decode heads with a pixel accuracy that the device is not waited for."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from mmseg.models.decode_heads import FCNHead, UPerHead
from mmseg.models.utils import resize
from torch import Tensor, nn


def pixel_accuracy(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Percentage of labelled pixels whose highest logit is at their label.

    mmseg's ``accuracy`` picks the labelled pixels out, and a device cannot go on before the host knows how many those
    are: four times per head and iteration.

    Args:
        logits (Tensor): (B, C, H, W).
        labels (Tensor): (B, H, W), integers.
        ignore_index (int): Label of the pixels that do not count.

    Returns:
        Tensor: 0-dim fp32, 0 where no pixel counts.
    """
    with torch.no_grad():
        counted = labels != ignore_index
        right = (logits.argmax(dim=1) == labels) & counted
        return 100.0 * right.sum() / counted.sum().clamp(min=1)


class AsyncAccuracy:
    """The losses of mmseg's ``BaseDecodeHead``, with :func:`pixel_accuracy`; inherited from before a decode head."""

    def loss_by_feat(self: Any, seg_logits: Tensor, batch_data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Losses of the logits, and how many pixels are right.

        Args:
            seg_logits (Tensor): (B, num_classes, h, w), of any grid.
            batch_data_samples (Sequence[SegDataSample]): The labels, all of one size (H, W).

        Returns:
            dict[str, Tensor]: The losses by name, and ``acc_seg`` in percent.
        """
        labels = self._stack_batch_gt(batch_data_samples)  # (B, 1, H, W)
        logits = resize(seg_logits, size=labels.shape[2:], mode='bilinear', align_corners=self.align_corners)
        weight = None if self.sampler is None else self.sampler.sample(logits, labels)
        labels = labels.squeeze(1)
        parts: Any = self.loss_decode if isinstance(self.loss_decode, nn.ModuleList) else [self.loss_decode]
        losses: dict[str, Tensor] = {}
        for part in parts:
            loss = part(logits, labels, weight=weight, ignore_index=self.ignore_index)
            losses[part.loss_name] = losses[part.loss_name] + loss if part.loss_name in losses else loss
        return losses | {'acc_seg': pixel_accuracy(logits, labels, self.ignore_index)}


@MODELS.register_module()
class AsyncUPerHead(AsyncAccuracy, UPerHead):
    """mmseg's ``UPerHead``; see :class:`AsyncAccuracy`. Weights are those of ``UPerHead``."""


@MODELS.register_module()
class AsyncFCNHead(AsyncAccuracy, FCNHead):
    """mmseg's ``FCNHead``; see :class:`AsyncAccuracy`. Weights are those of ``FCNHead``."""
