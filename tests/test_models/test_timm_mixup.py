"""TimmMixup: images and targets are timm's from the same random state, through mmpretrain's preprocessor and loss."""

import numpy as np
import pytest
import torch
from mmpretrain.models.losses import LabelSmoothLoss
from mmpretrain.registry import BATCH_AUGMENTS, MODELS
from mmpretrain.structures import DataSample
from timm.data.mixup import Mixup
from timm.loss import SoftTargetCrossEntropy

import nepa_mm  # noqa: F401  (registers)

NUM_CLASSES = 7


def _batch(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 3, 16, 16), torch.randint(0, NUM_CLASSES, (size,))


def _one_hot(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, NUM_CLASSES)


@pytest.mark.parametrize('mode', ['batch', 'pair', 'elem'])
def test_images_targets_and_loss_are_timms(mode):
    theirs = Mixup(0.8, 1.0, mode=mode, label_smoothing=0.1, num_classes=NUM_CLASSES)
    ours = BATCH_AUGMENTS.build(dict(type='TimmMixup', mode=mode))
    smooth = LabelSmoothLoss(label_smooth_val=0.1, num_classes=NUM_CLASSES, mode='original')
    for number in range(30):
        images, labels = _batch()
        np.random.seed(number)
        their_images, targets = theirs(images.clone(), labels)
        np.random.seed(number)
        our_images, scores = ours(images.clone(), _one_hot(labels))
        torch.testing.assert_close(our_images, their_images, rtol=0, atol=0)
        # The head smooths after mixing, timm before: the same, both are linear.
        torch.testing.assert_close(smooth.smooth_label(scores), targets, rtol=0, atol=1e-6)
        logits = torch.randn(8, NUM_CLASSES)
        torch.testing.assert_close(smooth(logits, scores), SoftTargetCrossEntropy()(logits, targets))


def test_it_switches_between_the_two_and_is_always_on():
    augment = BATCH_AUGMENTS.build(dict(type='TimmMixup'))
    cut = 0
    for _ in range(200):
        images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 16, 16).clone()
        mixed, scores = augment(images, _one_hot(torch.arange(4)))
        torch.testing.assert_close(scores.sum(1), torch.ones(4))
        cut += bool(mixed[0].unique().numel() <= 2 and set(mixed[0].unique().tolist()) <= {0.0, 3.0})
    assert 75 < cut < 125  # .5, three deviations of 200 draws


def test_through_the_preprocessor_in_bf16():
    """The labels keep their 32 bits under autocast: bf16 would round a ratio of .997 to 1."""
    preprocess = MODELS.build(
        dict(
            type='ClsDataPreprocessor',
            mean=[127.5] * 3,
            std=[127.5] * 3,
            num_classes=NUM_CLASSES,
            batch_augments=dict(augments=dict(type='TimmMixup', cutmix_alpha=0.0)),
        )
    )
    samples = [DataSample().set_gt_label(label) for label in (0, 1)]
    np.random.seed(5)
    with torch.autocast('cpu', torch.bfloat16):
        batch = preprocess(dict(inputs=torch.zeros(2, 3, 4, 4, dtype=torch.uint8), data_samples=samples), training=True)
    score = batch['data_samples'][0].gt_score
    np.random.seed(5)
    np.random.choice(1), np.random.rand()  # which augmentation, whether to mix at all
    assert score.dtype == torch.float32
    assert score[0].item() == pytest.approx(np.random.beta(0.8, 0.8), rel=1e-6)
    assert score[:2].sum().item() == pytest.approx(1, rel=1e-6)


def test_soft_labels_are_mixed_too():
    augment = BATCH_AUGMENTS.build(dict(type='TimmMixup', cutmix_alpha=0.0))
    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    mixed, scores = augment(images, torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    share = mixed[0, 0, 0, 0]  # of the second image in the first
    torch.testing.assert_close(scores[0], (1 - share) * torch.tensor([0.75, 0.25]) + share * torch.tensor([0.5, 0.5]))


def test_an_odd_batch_is_refused():
    augment = BATCH_AUGMENTS.build(dict(type='TimmMixup'))
    images, labels = _batch(3)
    with pytest.raises(ValueError, match='got 3 images: use an even batch_size per GPU, and drop_last=True'):
        augment(images, _one_hot(labels))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(mixup_alpha=0.0, cutmix_alpha=0.0), 'one must be above 0'),
        (dict(mixup_alpha=-0.8), 'one must be above 0 and none below'),
        (dict(switch_prob=2), 'prob=1.0 and switch_prob=2 must lie in'),
        (dict(mode='image'), "mode='image' is not known"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        BATCH_AUGMENTS.build(dict(type='TimmMixup', **settings))
