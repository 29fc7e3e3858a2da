"""TimmMixup: timm's mixup and CutMix as a batch augmentation of mmpretrain."""

import torch
from mmpretrain.registry import BATCH_AUGMENTS
from timm.data.mixup import Mixup
from torch import Tensor


# Batch augmentations are mmpretrain's alone: mmengine has no registry of them to be the root.
@BATCH_AUGMENTS.register_module()
class TimmMixup:
    """Mixup or CutMix, drawn anew for each batch, every image mixed with its mirror in the batch.

    Goes into a classifier's ``train_cfg=dict(augments=dict(type='TimmMixup'))``, alone: it switches between the two by
    itself. Labels are mixed but not smoothed; ``LabelSmoothLoss(label_smooth_val=.1, mode='original')`` in the head
    then makes the targets that timm makes with ``label_smoothing=.1``, since both steps are linear. Random numbers come
    from numpy, in the main process.

    Args:
        mixup_alpha (float): Mixup's ratio is drawn from Beta(alpha, alpha); 0 turns mixup off. Defaults to the
            release's 0.8.
        cutmix_alpha (float): CutMix's ratio likewise; 0 turns CutMix off. Defaults to the release's 1.0.
        prob (float): Probability of mixing at all. Defaults to the release's 1.0.
        switch_prob (float): Probability of CutMix where both are on. Defaults to the release's 0.5.
        mode (str): One draw for the 'batch', each 'pair' or each 'elem'. Defaults to the release's 'batch'.

    Raises:
        ValueError: If both are off, a number is out of its range, the mode is unknown, or a batch has an odd number of
            images.
    """

    def __init__(
        self,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = 'batch',
    ) -> None:
        if min(mixup_alpha, cutmix_alpha) < 0 or max(mixup_alpha, cutmix_alpha) == 0:
            raise ValueError(
                f'mixup_alpha={mixup_alpha}, cutmix_alpha={cutmix_alpha}: one must be above 0 and none below'
            )
        if not 0 <= prob <= 1 or not 0 <= switch_prob <= 1:
            raise ValueError(f'prob={prob} and switch_prob={switch_prob} must lie in 0..1')
        if mode not in ('batch', 'pair', 'elem'):
            raise ValueError(f"mode={mode!r} is not known; choose from ['batch', 'pair', 'elem']")
        self.mixup = Mixup(
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            prob=prob,
            switch_prob=switch_prob,
            mode=mode,
            label_smoothing=0.0,
        )

    def __call__(self, batch_inputs: Tensor, batch_score: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a normalised batch, in place, and its labels.

        Args:
            batch_inputs (Tensor): Images (B, 3, H, W), float, B even.
            batch_score (Tensor): One-hot or soft labels (B, num_classes).

        Returns:
            tuple[Tensor, Tensor]: Mixed images and float labels, same shapes.
        """
        batch_size = len(batch_inputs)
        if batch_size % 2:
            raise ValueError(
                f'TimmMixup mixes each image with its mirror in the batch and got {batch_size} images: use an even '
                'batch_size per GPU, and drop_last=True in train_dataloader'
            )
        # timm mixes class numbers. Given each image a class of its own, the diagonal says how much of itself it keeps.
        self.mixup.num_classes = batch_size
        mixed, owners = self.mixup(batch_inputs, torch.arange(batch_size, device=batch_inputs.device))
        keep = owners.diagonal().unsqueeze(1)  # (B, 1)
        # By element: a matrix product would run in bf16 under autocast.
        return mixed, keep * batch_score + (1 - keep) * batch_score.flip(0)
