"""The numbers of the recipes, as the optimiser and the schedulers see them, against the published ones."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, PARAM_SCHEDULERS, DefaultScope

import nepa_mm  # noqa: F401  registers what the configs build
from tests.golden import ROOT

PRETRAIN = 'pretrain/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k.py'
FINETUNE = 'classification/nepa_base-p14_8xb128-bf16-coslr-100e_in1k.py'
SEGMENT = 'segmentation/nepa_base-p14_upernet_8xb2-bf16-160k_ade20k-518x518.py'
# Published: paper and release for pretraining, the release for fine-tuning, mmseg's MAE-B + UPerNet for segmentation.
TABLE = {
    PRETRAIN: dict(
        lr=4.8e-3, betas=(0.9, 0.95), decay=0.05, clip=1.0, batch=4096, gpus=8, ema=0.9999, length=('epochs', 1600)
    ),
    FINETUNE: dict(
        lr=6e-3, betas=(0.9, 0.999), decay=0.05, clip=1.0, batch=1024, gpus=8, ema=0.9999, length=('epochs', 100)
    ),
    SEGMENT: dict(
        lr=1e-4, betas=(0.9, 0.999), decay=0.05, clip=None, batch=16, gpus=8, ema=None, length=('iters', 160000)
    ),
}


def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


@pytest.mark.parametrize('name', TABLE)
def test_optimiser_batch_and_length(name):
    cfg, told = load(name), TABLE[name]
    wrapper = cfg.optim_wrapper
    assert (wrapper.type, wrapper.dtype, wrapper.optimizer.type) == ('AutocastOptimWrapper', 'bfloat16', 'AdamW')
    assert wrapper.optimizer.lr == pytest.approx(told['lr'])
    assert tuple(wrapper.optimizer.betas) == told['betas']
    assert wrapper.optimizer.weight_decay == told['decay']
    assert (wrapper.get('clip_grad') or {}).get('max_norm') == told['clip']
    assert cfg.auto_scale_lr.base_batch_size == told['batch'] == told['gpus'] * cfg.train_dataloader.batch_size
    kind, length = told['length']
    assert cfg.train_cfg[f'max_{kind}'] == length
    hooks = [HOOKS.get(h.type) and h for h in cfg.get('custom_hooks', []) if h.type == 'EMAHook']
    assert [1 - h.momentum for h in hooks] == ([] if told['ema'] is None else [pytest.approx(told['ema'])])


def multipliers(cfg: Config, per_epoch: int, steps: int) -> list[float]:
    """Learning rate over its base after 0, 1, ... steps, from the config's own schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = []
    for scheduler in cfg.param_scheduler:
        scheduler = dict(scheduler)
        convert = scheduler.pop('convert_to_iter_based', False)
        kind = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        if convert:
            schedulers.append(kind.build_iter_from_epoch(optimizer, epoch_length=per_epoch, **scheduler))
        else:
            schedulers.append(kind(optimizer, **scheduler))
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


@pytest.mark.parametrize(
    ('name', 'per_epoch', 'warm_up', 'total', 'shape'),
    [
        (PRETRAIN, 1, 40, 1600, 'cosine'),
        (FINETUNE, 1, 20, 100, 'cosine'),
        (SEGMENT, None, 1500, 160000, 'linear'),
    ],
)
def test_schedule(name, per_epoch, warm_up, total, shape):
    """Linear warm-up from (almost) 0 to 1, then a half cosine, or a line, to 0."""
    cfg = load(name)
    rates = multipliers(cfg, per_epoch, total)
    assert rates[0] < 1.01e-4
    assert rates[warm_up // 2] == pytest.approx(0.5, abs=0.6 / warm_up)
    assert rates[warm_up] == pytest.approx(1, abs=1e-6)
    middle = (warm_up + total) // 2
    assert rates[middle] == pytest.approx(0.5, abs=2 / (total - warm_up))
    quarter = warm_up + (total - warm_up) // 4
    assert rates[quarter] == pytest.approx(0.853553 if shape == 'cosine' else 0.75, abs=2 / (total - warm_up))
    assert rates[-1] < 3 / (total - warm_up)
    assert max(rates) <= 1 + 1e-9


def built(cfg: Config):
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        return MODELS.build(cfg.model)


def test_pretraining_groups():
    """Two groups; biases, norms and LayerScale are not decayed, the 3-D BOS token is."""
    cfg = load(PRETRAIN)
    model = built(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    free = {names[id(p)] for g in groups if g['weight_decay'] == 0 for p in g['params']}
    assert len(groups) == 2 and [g['lr'] for g in groups] == pytest.approx([4.8e-3] * 2)
    assert free == {n for n in names.values() if n.endswith('.bias') or 'norm' in n or 'gamma' in n}
    assert 'backbone.cls_token' not in free


def test_segmentation_groups():
    """Mmseg's count: .65 per layer from the last layer on, heads at the full rate."""
    cfg = load(SEGMENT)
    model = built(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    rates = {names[id(p)]: g['lr'] / 1e-4 for g in groups for p in g['params']}
    assert rates['decode_head.conv_seg.weight'] == 1
    for layer in range(12):
        assert rates[f'backbone.layers.{layer}.mlp.fc1.weight'] == pytest.approx(0.65 ** (12 - layer))
    assert rates['backbone.patch_embed.proj.weight'] == pytest.approx(0.65**13)
    assert len(groups) <= 2 * 14


def test_models_of_the_recipes():
    pretrain, finetune, segment = (load(n).model for n in (PRETRAIN, FINETUNE, SEGMENT))
    for model in (pretrain, finetune, segment):
        assert list(model.data_preprocessor.mean) == list(model.data_preprocessor.std) == [127.5] * 3
        backbone = model.backbone
        assert (backbone.arch, backbone.patch_size, backbone.mlp) == ('base', 14, 'gelu')
        assert backbone.layer_scale_init == 1e-5
        assert dict(backbone.rope) == dict(base=100.0, rescale=2.0, shift=None, jitter=None)
    assert (finetune.backbone.drop_path_rate, finetune.backbone.freeze_patch_embed) == (0.1, True)
    assert (segment.backbone.drop_path_rate, tuple(segment.backbone.out_indices)) == (0.1, (3, 5, 7, 11))
    assert not finetune.backbone.get('causal') and not segment.backbone.get('causal')
    assert segment.test_cfg.crop_size == (518, 518) and segment.test_cfg.stride == (345, 345)
    assert (segment.decode_head.channels, segment.auxiliary_head.loss_decode.loss_weight) == (768, 0.4)


def test_augmentation_of_pretraining():
    crop, flip = load(PRETRAIN).train_pipeline[1:3]
    assert (crop.scale, tuple(crop.crop_ratio_range), tuple(crop.aspect_ratio_range)) == (
        224,
        (0.08, 1.0),
        (0.75, 4 / 3),
    )
    assert (crop.interpolation, crop.backend, flip.prob) == ('bilinear', 'pillow', 0.5)
