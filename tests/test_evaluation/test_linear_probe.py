"""The linear probe against scikit-learn's logistic regression, and against a head that is trained by passes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from sklearn.linear_model import LogisticRegression

from nepa_mm.evaluation import choose_weight_decay, fit_linear_probe, pool_tokens, split_by_class


def blobs(count, classes=3, width=8, spread=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    features = centres[labels] + spread * torch.randn(count, width, generator=generator)
    # what layers differ in: an offset, and channels of very different scales
    return (features * torch.logspace(-2, 2, width) + 5).double(), labels


@pytest.mark.parametrize('weight_decay', [1e-3, 1e-1])
def test_equals_scikit_learn_at_the_same_penalty(weight_decay):
    x, y = blobs(200)
    probe = fit_linear_probe(x, y, 3, weight_decay, tolerance=1e-14, max_iter=1000)
    assert probe.converged

    standard = ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-6).sqrt()).numpy()
    theirs = LogisticRegression(C=1 / (weight_decay * len(x)), tol=1e-10, max_iter=5000).fit(standard, y.numpy())
    np.testing.assert_allclose(probe.weight.numpy(), theirs.coef_, atol=1e-5)
    # the common part of all biases changes nothing
    bias = probe.bias.numpy() - probe.bias.mean().item()
    np.testing.assert_allclose(bias, theirs.intercept_ - theirs.intercept_.mean(), atol=1e-5)
    np.testing.assert_allclose(torch.softmax(probe(x), 1).numpy(), theirs.predict_proba(standard), atol=1e-5)


def test_the_gradient_is_the_one_of_the_stated_objective():
    x, y = blobs(60)
    probe = fit_linear_probe(x, y, 3, weight_decay=0.01, tolerance=1e-16, max_iter=1000, chunk=17)
    weight, bias = probe.weight.clone().requires_grad_(), probe.bias.clone().requires_grad_()
    logits = (x - probe.mean) / probe.std @ weight.T + bias
    (F.cross_entropy(logits, y) + 0.01 / 2 * weight.square().sum()).backward()
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-9


def test_solves_a_separable_toy():
    x, y = blobs(90, spread=0.05)
    unseen, truth = blobs(90, spread=0.05, seed=1)
    probe = fit_linear_probe(x.float(), y, 3, weight_decay=1e-4)
    assert (probe(unseen.float()).argmax(1) == truth).all()


def test_a_channel_that_never_varies_does_no_harm():
    x, y = blobs(90, spread=0.05)
    x[:, 3] = 7.0
    probe = fit_linear_probe(x.float(), y, 3, weight_decay=1e-4)
    assert torch.isfinite(probe.weight).all() and (probe(x.float()).argmax(1) == y).all()


def test_says_where_it_did_not_converge():
    x, y = blobs(90)
    assert not fit_linear_probe(x, y, 3, weight_decay=1e-6, max_iter=3).converged


def test_wrong_labels_and_penalties_are_refused():
    x, y = blobs(30)
    with pytest.raises(ValueError, match=r'labels go from 0 to 2; expected 0..1'):
        fit_linear_probe(x, y, 2, 1e-3)
    with pytest.raises(ValueError, match='weight_decay=0 is not positive'):
        fit_linear_probe(x, y, 3, 0)
    with pytest.raises(ValueError, match='at least 2 classes, got 1'):
        fit_linear_probe(x, torch.zeros_like(y), 1, 1e-3)


def test_split_by_class():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] + [3, 3])
    drawn = split_by_class(labels, 0.2)
    assert [int(drawn[labels == c].sum()) for c in range(4)] == [2, 1, 0, 1]
    assert torch.equal(drawn, split_by_class(labels, 0.2))
    assert not torch.equal(drawn, split_by_class(labels, 0.2, seed=1))
    with pytest.raises(ValueError, match='no class of the 3 images has two'):
        split_by_class(torch.arange(3), 0.2)


def test_weight_decay_is_chosen_on_the_held_out_fifth():
    """By hand: fit on the other four fifths, compare there; noise channels make strong decay the better choice."""
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(60) % 2
    x = torch.randn(60, 40, generator=generator)
    x[:, 0] += 3 * y
    choices = (1e-5, 1e-1)
    held_out = split_by_class(y, 0.2)
    scores = {}
    for decay in choices:
        logits = fit_linear_probe(x[~held_out], y[~held_out], 2, decay)(x[held_out])
        scores[decay] = 100 * (logits.argmax(1) == y[held_out]).double().mean().item()
    assert scores[1e-1] > scores[1e-5]
    assert choose_weight_decay(x, y, 2, choices) == (1e-1, pytest.approx(scores[1e-1]))


def test_ends_where_training_the_linear_head_over_images_ends():
    """The same answers on unseen images from two ways of getting a linear probe.

    One trains mmpretrain's classifier with the leafs' frozen backbone, BatchNorm neck and linear head by passes over
    the images, without augmentation; the other fits the probe to features that were kept once.
    """
    import mmpretrain.models  # noqa: F401

    width, classes, decay = 16, 3, 1e-2
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=classes),
            backbone=dict(
                type='NEPAViT',
                arch=dict(embed_dims=width, num_layers=2, num_heads=2, feedforward_channels=32),
                patch_size=4,
                layer_scale_init=0.5,
                out_type='avg_featmap',
                out_indices=0,
                frozen_stages=2,
            ),
            neck=dict(type='mmpretrain.ClsBatchNormNeck', input_features=width, affine=False),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=classes, in_channels=width),
        )
    )
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % classes
    shades = 40 * labels[:, None, None, None] + torch.randint(0, 120, (96, 3, 8, 8), generator=generator)
    images = (shades.float() - 127.5) / 127.5
    train, val = images[:60], images[60:]
    samples = [DataSample().set_gt_label(int(label)) for label in labels[:60]]

    model.neck.bn.momentum = None  # running mean of the one full batch, instead of a decaying one
    optimizer = torch.optim.SGD(model.head.parameters(), lr=1.0, momentum=0.9)
    model.train()
    for _ in range(400):
        optimizer.zero_grad()
        loss = model.loss(train, samples)['loss'] + decay / 2 * model.head.fc.weight.square().sum()
        loss.backward()
        optimizer.step()
    model.eval()

    backbone = model.backbone
    with torch.no_grad():
        trained = model.head(model.extract_feat(val))
        kept = [pool_tokens(backbone.encode(*backbone.embed(x), (0,))[0], 'avg') for x in (train, val)]
    probe = fit_linear_probe(kept[0], labels[:60], classes, decay)
    ours = probe(kept[1])
    assert (ours.argmax(1) == trained.argmax(1)).all()
    assert 60 < (ours.argmax(1) == labels[60:]).double().mean() * 100 <= 100
    # BatchNorm's running variance counts N - 1, the batch's N: a factor of 60/59 between the two
    torch.testing.assert_close(torch.softmax(ours, 1), torch.softmax(trained, 1), atol=0.01, rtol=0)
