"""mmpretrain's preprocessor of classifiers, whose labels go to the device without the host waiting for them."""

from typing import Any

import torch
from mmengine.registry import MODELS
from mmpretrain.models.utils import ClsDataPreprocessor


@MODELS.register_module()
class AsyncClsDataPreprocessor(ClsDataPreprocessor):
    """``ClsDataPreprocessor``, which copies the labels of a batch as it copies its images.

    mmpretrain's copies them from ordinary memory, and the host waits at every iteration until the device has done all
    that came before. Arguments are those of ``ClsDataPreprocessor``.
    """

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Preprocess a batch.

        Args:
            data (dict[str, Any]): ``inputs`` and, in training and evaluation, ``data_samples``.
            training (bool): Whether to mix images where that is asked for. Defaults to False.

        Returns:
            dict[str, Any]: As in mmpretrain.
        """
        samples = data.get('data_samples') or ()
        if samples and all('gt_label' in sample for sample in samples):
            labels = [sample.gt_label for sample in samples]
            together = torch.cat(labels)
            if self.device.type == 'cuda':
                together = together.pin_memory()  # from other memory the driver would wait after all
            together = together.to(self.device, non_blocking=self._non_blocking)
            for sample, label in zip(samples, together.split([len(label) for label in labels]), strict=True):
                sample.set_gt_label(label)
        return super().forward(data, training)
