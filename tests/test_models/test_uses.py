"""NEPAViT inside mmseg's EncoderDecoder and mmpretrain's ImageClassifier: the modes that users switch between."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample

import nepa_mm  # noqa: F401  registers NEPAViT, as custom_imports does in a config

ROOT = Path(__file__).parents[2]
ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)
NORM = dict(type='BN')
MEAN_STD = dict(mean=[127.5] * 3, std=[127.5] * 3)


@pytest.fixture(autouse=True)
def scope(request):
    """What default_scope sets in a config."""
    host = 'mmpretrain' if 'classifier' in request.node.name else 'mmseg'
    with DefaultScope.overwrite_default_scope(host):
        yield


def segmentor_config(patch_size=14, **test_cfg) -> dict:
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', **MEAN_STD, bgr_to_rgb=True, size_divisor=1),
        backbone=dict(type='NEPAViT', arch=ARCH, patch_size=patch_size, out_indices=(0, 1, 2, 3), layer_scale_init=0.1),
        neck=dict(type='PatchPyramid', in_channels=32, patch_size=patch_size, norm_cfg=NORM),
        decode_head=dict(
            type='UPerHead',
            in_channels=[32] * 4,
            in_index=[0, 1, 2, 3],
            pool_scales=(1, 2, 3, 6),
            channels=16,
            num_classes=5,
            norm_cfg=NORM,
            align_corners=False,
        ),
        auxiliary_head=dict(
            type='FCNHead', in_channels=32, in_index=2, channels=8, num_convs=1, num_classes=5, norm_cfg=NORM
        ),
        train_cfg=dict(),
        test_cfg=test_cfg or dict(mode='whole'),
    )


def build_segmentor(**kwargs):
    model = MMSEG_MODELS.build(ConfigDict(segmentor_config(**kwargs)))
    model.init_weights()
    return model


def batch(height, width, count=1):
    samples = []
    for _ in range(count):
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 5, (1, height, width))))
        sample.set_metainfo(dict(img_shape=(height, width), ori_shape=(height, width)))
        samples.append(sample)
    return dict(
        inputs=[torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(count)],
        data_samples=samples,
    )


@pytest.mark.parametrize('size', [(70, 98), (75, 101), (96, 96)])
def test_segmentor_trains_and_predicts_at_any_size(size):
    model = build_segmentor()
    data = model.data_preprocessor(batch(*size, count=2), training=True)
    losses = model(**data, mode='loss')
    assert {'decode.loss_ce', 'aux.loss_ce'} <= set(losses)
    total, _ = model.parse_losses(losses)
    total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    (result,) = model.eval().test_step(batch(*size))
    assert result.pred_sem_seg.data.shape == (1, *size)
    assert result.seg_logits.data.shape == (5, *size)


def test_padding_does_not_blow_up_the_gradient_of_a_random_start():
    """A patch that is all padding must not embed to exactly zero, where LayerNorm's gradient is 1 / eps."""
    config = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / 'upernet_nepa_base-p14.py')
    norms = []
    for pad in (0, 42):
        torch.manual_seed(0)
        model = build_segmentor()
        preprocess = MMSEG_MODELS.build(config.model.data_preprocessor | dict(size=(70 + pad, 70 + pad)))
        data = preprocess(batch(70, 70, count=2), training=True)
        assert data['inputs'].shape[-1] == 70 + pad
        model.parse_losses(model(**data, mode='loss'))[0].backward()
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in model.backbone.parameters()]).item())
    assert norms[1] < 10 * norms[0]


def test_slide_with_one_window_is_whole():
    torch.manual_seed(1)
    whole = build_segmentor().eval()
    slide = build_segmentor(mode='slide', crop_size=(75, 101), stride=(50, 50)).eval()
    slide.load_state_dict(whole.state_dict())
    data = batch(75, 101)
    torch.testing.assert_close(
        slide.test_step(data)[0].seg_logits.data, whole.test_step(data)[0].seg_logits.data, atol=1e-5, rtol=1e-5
    )


def test_slide_covers_an_image_larger_than_the_window():
    model = build_segmentor(mode='slide', crop_size=(56, 56), stride=(37, 37)).eval()
    (result,) = model.test_step(batch(75, 101))
    assert result.seg_logits.data.shape == (5, 75, 101)
    assert torch.isfinite(result.seg_logits.data).all()


def test_tta_averages_over_scales_and_flips():
    config = ConfigDict(segmentor_config())
    tta = MMSEG_MODELS.build(dict(type='SegTTAModel', module=config)).eval()
    image = torch.randint(0, 256, (3, 70, 70), dtype=torch.uint8)
    views, samples = [], []
    for scale, flip in ((70, False), (70, True), (98, False), (98, True)):
        view = torch.nn.functional.interpolate(image[None].float(), size=(scale, scale))[0].byte()
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 70, 70, dtype=torch.long)))
        sample.set_metainfo(
            dict(img_path='a.jpg', img_shape=(scale, scale), ori_shape=(70, 70), flip=flip, flip_direction='horizontal')
        )
        views.append([view.flip(-1) if flip else view])
        samples.append([sample])
    (result,) = tta.test_step(dict(inputs=views, data_samples=samples))
    by_hand = 0
    for view, sample in zip(views, samples, strict=True):
        (single,) = tta.module.test_step(dict(inputs=view, data_samples=[sample[0].clone()]))
        by_hand = by_hand + single.seg_logits.data.softmax(0)
    assert result.pred_sem_seg.data.shape == (1, 70, 70)
    agree = (result.pred_sem_seg.data[0] == by_hand.argmax(0)).float().mean()
    assert agree > 0.999


# ---------------------------------------------------------------------- classification


def build_classifier(frozen=False, out_type='avg_featmap', causal=False):
    return MMPRETRAIN_MODELS.build(
        dict(
            type='ImageClassifier',
            data_preprocessor=dict(type='ClsDataPreprocessor', **MEAN_STD, to_rgb=True, num_classes=2),
            backbone=dict(
                type='NEPAViT',
                arch=ARCH,
                patch_size=4,
                causal=causal,
                out_type=out_type,
                layer_scale_init=0.1,
                frozen_stages=4 if frozen else -1,
            ),
            head=dict(type='NEPAClsHead', num_classes=2, in_channels=32, topk=1),
        )
    )


@pytest.mark.parametrize(('out_type', 'causal'), [('avg_featmap', False), ('last_token', True)])
@pytest.mark.parametrize('frozen', [False, True])
def test_classifier_learns_with_and_without_the_backbone(frozen, out_type, causal):
    """Horizontal against vertical stripes."""
    model = build_classifier(frozen, out_type, causal)
    model.init_weights()
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    stripes = torch.tensor([0.0, 255.0]).repeat(8)
    images = torch.stack([stripes.expand(3, 16, 16), stripes[:, None].expand(3, 16, 16)] * 4)
    noisy = (images + 40 * torch.randn_like(images)).clamp(0, 255).byte()
    samples = [DataSample().set_gt_label(i % 2) for i in range(8)]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    history = []
    for _ in range(30):
        data = model.data_preprocessor(dict(inputs=noisy, data_samples=samples), training=True)
        loss = model.train()(**data, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[0] == pytest.approx(0.6931, abs=1e-3), 'the zero classifier starts at ln 2'
    assert history[-1] < 0.2
    unchanged = all(torch.equal(v, before[k]) for k, v in model.backbone.state_dict().items())
    assert unchanged == frozen
    predictions = model.eval().test_step(dict(inputs=noisy, data_samples=samples))
    assert [p.pred_label.item() for p in predictions] == [i % 2 for i in range(8)]
