"""NEPA, its head and its loss; and the same weights in all three uses."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmseg.registry import MODELS as MMSEG_MODELS

from nepa_mm.checkpoints import CheckpointError
from nepa_mm.models import NEPA, NEPAHead, NEPAViT, NextEmbeddingLoss

ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)
BACKBONE = dict(type='NEPAViT', arch=ARCH, patch_size=4, layer_scale_init=0.1)


def build(**kwargs) -> NEPA:
    return MMPRETRAIN_MODELS.build(dict(type='NEPA', backbone=dict(BACKBONE), **kwargs))


def test_one_registration_serves_both_hosts():
    for registry in (MODELS, MMPRETRAIN_MODELS, MMSEG_MODELS):
        assert registry.get('NEPAViT') is NEPAViT
        assert registry.get('PatchPyramid') is not None
    assert MMPRETRAIN_MODELS.get('NEPA') is NEPA


def test_causal_where_the_config_is_silent_and_obedient_where_it_is_not():
    assert build().backbone.causal is True
    silent = dict(BACKBONE)
    MODELS.build(dict(type='NEPA', backbone=silent))
    assert 'causal' not in silent, "the caller's config is not changed"
    ablation = MODELS.build(dict(type='NEPA', backbone=dict(BACKBONE, causal=False)))
    assert ablation.backbone.causal is False
    assert MODELS.build(dict(BACKBONE)).causal is False


def test_init_cfg_of_the_algorithm_goes_through_the_checked_loader(tmp_path):
    torch.save(dict(state_dict={'garbage': torch.zeros(1)}), tmp_path / 'a.pth')
    model = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')))
    with pytest.raises(CheckpointError, match='Nothing of .*a.pth fits the model'):
        model.init_weights()


def test_a_backbone_that_cannot_predict_is_refused():
    with pytest.raises(TypeError, match='Conv2d has no predict_next'):
        NEPA(backbone=torch.nn.Conv2d(3, 8, 4))


def test_loss_mode_and_tensor_mode():
    model = build().eval()
    images = torch.randn(2, 3, 16, 16)
    out = model(images, mode='loss')
    assert set(out) == {'loss', 'copy_baseline', 'target_std', 'target_mean_norm'}
    prediction, embeddings = model.backbone.predict_next(images)
    by_hand = -F.cosine_similarity(prediction[:, :-1], embeddings[:, 1:], dim=-1).mean()
    torch.testing.assert_close(out['loss'], by_hand)
    assert model(images, mode='tensor')[0].shape == (2, 32, 4, 4)
    total, logged = model.parse_losses(out)
    torch.testing.assert_close(total, out['loss'])
    assert set(logged) >= set(out), 'the figures are logged, and are no part of the sum'


def test_the_data_preprocessor_normalises_to_plus_minus_one_in_rgb():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[:, 0] = 255  # OpenCV's blue
    batch = build().data_preprocessor(dict(inputs=images, data_samples=None))['inputs']
    assert batch[:, 2].eq(1).all() and batch[:, :2].eq(-1).all()


# ---------------------------------------------------------------------- the loss


def _pair():
    return torch.randn(2, 5, 8, requires_grad=True), torch.randn(2, 5, 8, requires_grad=True)


def test_perfect_prediction_scores_minus_one():
    _, z = _pair()
    prediction = torch.roll(z.detach(), -1, dims=1) * 3
    assert NextEmbeddingLoss()(prediction, z).item() == pytest.approx(-1)
    assert NextEmbeddingLoss(shift=False)(z.detach(), z).item() == pytest.approx(-1)
    assert NextEmbeddingLoss(distance='mse')(torch.roll(z.detach(), -1, dims=1), z).item() == 0


def test_each_distance_by_hand():
    h, z = _pair()
    p, t = h[:, :-1], z[:, 1:]
    expected = dict(
        cosine=-((p * t).sum(-1) / p.norm(dim=-1) / t.norm(dim=-1)).mean(),
        mse=(p - t).square().mean(),
        smooth_l1=torch.where((p - t).abs() < 1, 0.5 * (p - t) ** 2, (p - t).abs() - 0.5).mean(),
    )
    for distance, value in expected.items():
        torch.testing.assert_close(NextEmbeddingLoss(distance=distance)(h, z), value)
    torch.testing.assert_close(NextEmbeddingLoss(loss_weight=2.0)(h, z), 2 * expected['cosine'])


@pytest.mark.parametrize('stop_gradient', [True, False])
def test_stop_gradient(stop_gradient):
    h, z = _pair()
    NextEmbeddingLoss(stop_gradient=stop_gradient)(h, z).backward()
    assert h.grad.abs().sum() > 0
    assert (z.grad is None) == stop_gradient


def test_the_patch_embedding_learns_through_the_input_path_alone():
    model = build().train()
    model(torch.randn(2, 3, 16, 16), mode='loss')['loss'].backward()
    assert model.backbone.patch_embed.proj.weight.grad.abs().sum() > 0
    assert model.backbone.cls_token.grad.abs().sum() > 0
    assert all(p.grad is not None for p in model.parameters()), 'DDP needs no find_unused_parameters'


def test_fp32_under_autocast():
    h, z = _pair()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = NextEmbeddingLoss()(h.bfloat16(), z.bfloat16())
    assert loss.dtype == torch.float32


def test_wrong_loss_inputs():
    with pytest.raises(ValueError, match="distance='l1' is unknown"):
        NextEmbeddingLoss(distance='l1')
    with pytest.raises(ValueError, match=r'\(2, 5, 8\) and embeddings \(2, 4, 8\)'):
        NextEmbeddingLoss()(torch.zeros(2, 5, 8), torch.zeros(2, 4, 8))


# ---------------------------------------------------------------------- what shows collapse


def test_figures_of_collapsed_targets():
    figures = NEPAHead().collapse_figures(torch.ones(4, 9, 8))
    assert figures['target_mean_norm'].item() == pytest.approx(1)
    assert figures['target_std'].item() == 0
    assert figures['copy_baseline'].item() == pytest.approx(-1)


def test_the_baseline_is_on_the_scale_of_the_loss():
    z = torch.randn(2, 9, 8)
    heads = [NEPAHead(loss=dict(type='NextEmbeddingLoss', distance='mse', loss_weight=w)) for w in (1.0, 100.0)]
    one, hundred = (head.collapse_figures(z)['copy_baseline'].item() for head in heads)
    assert hundred == pytest.approx(100 * one)


def test_figures_of_random_targets():
    z = torch.randn(64, 65, 128) * 3
    figures = NEPAHead().collapse_figures(z)
    assert figures['target_mean_norm'].item() < 0.03
    assert figures['target_std'].item() == pytest.approx(3, rel=0.02)
    assert figures['copy_baseline'].item() == pytest.approx(0, abs=0.01)


def test_squared_mean_norm_is_the_mean_pairwise_cosine():
    z = torch.randn(2, 4, 6) + 0.5
    directions = F.normalize(z[:, 1:].flatten(0, 1), dim=-1)
    pairwise = (directions @ directions.T).mean()
    assert NEPAHead().collapse_figures(z)['target_mean_norm'].square().item() == pytest.approx(
        pairwise.item(), abs=1e-6
    )


# ---------------------------------------------------------------------- learning, and the three uses


def test_the_loss_falls_in_a_few_steps_below_the_copy_baseline():
    """Stripes whose next patch is not the current one: copying fails, and a few steps learn the pattern."""
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    ramp = torch.linspace(-1, 1, 4).tile(4, 1)
    images = torch.stack([ramp, ramp.T], 0).repeat(2, 1, 1).repeat(1, 1, 4).unsqueeze(1).repeat(1, 3, 4, 1)
    images[..., 4:8] *= -1
    images[..., 12:16] *= -1
    history = []
    for _ in range(60):
        out = model(images + 0.05 * torch.randn_like(images), mode='loss')
        optimizer.zero_grad()
        out['loss'].backward()
        optimizer.step()
        history.append(out['loss'].item())
    assert history[-1] < -0.9 < history[0]
    assert history[-1] < out['copy_baseline'].item() - 0.1


def test_the_same_weights_serve_all_three_uses():
    """A pretraining checkpoint's backbone.* loads into classifier and segmentor with nothing renamed."""
    nepa = build()
    weights = {k: v for k, v in nepa.state_dict().items() if k.startswith('backbone.')}
    classifier = MMPRETRAIN_MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(BACKBONE, out_type='avg_featmap'),
            head=dict(type='NEPAClsHead', num_classes=3, in_channels=32),
        )
    )
    segmentor = MMSEG_MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=dict(BACKBONE, out_indices=(0, 1, 2, 3)),
            neck=dict(type='PatchPyramid', in_channels=32, patch_size=4, norm_cfg=dict(type='BN')),
            decode_head=dict(
                type='FCNHead',
                in_channels=32,
                in_index=0,
                channels=8,
                num_convs=1,
                num_classes=3,
                norm_cfg=dict(type='BN'),
            ),
        )
    )
    for model in (classifier, segmentor):
        model.init_weights()
        result = model.load_state_dict(weights, strict=False)
        assert not result.unexpected_keys
        assert not [k for k in result.missing_keys if k.startswith('backbone.')]

    images = torch.randn(1, 3, 16, 16)
    nepa.eval(), classifier.eval(), segmentor.eval()
    nepa.backbone.causal = False
    tokens = nepa.backbone.predict_next(images)[0][:, 1:]
    torch.testing.assert_close(segmentor.backbone(images)[-1].flatten(2).transpose(1, 2), tokens)
    torch.testing.assert_close(classifier.backbone(images)[-1], tokens.mean(1))
    logits = classifier(images)
    assert logits.shape == (1, 3) and not logits.any(), 'the classifier starts from zero'
    assert segmentor(images).shape == (1, 3, 4, 4)
