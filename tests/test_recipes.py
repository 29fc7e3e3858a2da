"""The numbers of the recipes, as the optimiser, the schedulers and the pipelines see them, against the published ones.

Segmentation has a file of its own, test_recipes_segmentation.py.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, PARAM_SCHEDULERS, DefaultScope
from PIL import Image

import nepa_mm  # noqa: F401  registers what the configs build
from tests.golden import GOLDEN, ROOT

LEAFS = sorted(p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)
PRETRAIN = 'pretrain/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k'
FINETUNE = 'classification/nepa_base-p14_8xb128-bf16-coslr-100e_in1k'
PAPER = 'classification/nepa-swiglu_base-p14_8xb128-bf16-coslr-100e_in1k'
SEGMENT = 'segmentation/nepa_base-p14_upernet_8xb2-bf16-160k_ade20k-518x518'
RELEASE_L = 'classification/nepa_large-p14_8xb128-bf16-coslr-100e_in1k'
PAPER_L = 'classification/nepa-swiglu_large-p14_8xb128-bf16-coslr-50e_in1k'

# (arch, mlp, qk_norm), epochs, warm-up epochs; everything else is the same in all of them.
PRETRAINING = {
    PRETRAIN: (('base', 'gelu', 'plain'), 1600, 40),
    'pretrain/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k-gpu-jpeg': (('base', 'gelu', 'plain'), 1600, 40),
    'pretrain/nepa_base-p14_8xb512-compile-bf16-coslr-1600e_in1k': (('base', 'gelu', 'plain'), 1600, 40),
    'pretrain/nepa_large-p14_8xb128-accum4-compile-bf16-coslr-1600e_in1k': (('large', 'gelu', 'affine'), 1600, 40),
    'pretrain/nepa_base-p14_16xb256-bf16-coslr-1600e_in1k': (('base', 'gelu', 'plain'), 1600, 40),
    'pretrain/nepa_base-p14_4xb256-accum4-bf16-coslr-1600e_in1k': (('base', 'gelu', 'plain'), 1600, 40),
    'pretrain/nepa_base-p14_1xb256-accum16-bf16-coslr-1600e_in1k': (('base', 'gelu', 'plain'), 1600, 40),
    'pretrain/nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k': (('large', 'gelu', 'affine'), 1600, 40),
    'pretrain/nepa_large-p14_32xb128-bf16-coslr-1600e_in1k': (('large', 'gelu', 'affine'), 1600, 40),
    'pretrain/nepa-swiglu_base-p14_8xb256-accum2-bf16-coslr-1600e_in1k': (('base', 'swiglu', 'plain'), 1600, 40),
    'pretrain/nepa-swiglu_large-p14_8xb128-accum4-bf16-coslr-800e_in1k': (('large', 'swiglu', 'plain'), 800, 40),
    'pretrain/nepa_small-p14_8xb512-bf16-coslr-300e_in1k': (('small', 'gelu', 'plain'), 300, 15),
    'pretrain/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k-hf': (('base', 'gelu', 'plain'), 1600, 40),
    'pretrain/nepa_large-p14_8xb128-accum4-fsdp-bf16-coslr-1600e_in1k': (('large', 'gelu', 'affine'), 1600, 40),
    'pretrain/nepa_large-p14_8xb512-cp-bf16-coslr-1600e_in1k': (('large', 'gelu', 'affine'), 1600, 40),
    'pretrain/nepa_huge-p14_8xb512-fsdp-cp-bf16-coslr-800e_in1k': (('huge', 'gelu', 'affine'), 800, 40),
    'pretrain/nepa_base-p14_8xb256-bf16-coslr-400e_image-folder': (('base', 'gelu', 'plain'), 400, 10),
    'pretrain/nepa_small-p14_1xb256-bf16-coslr-300e_image-folder': (('small', 'gelu', 'plain'), 300, 15),
    'pretrain/nepa_small-p14_1xb256-bf16-coslr-300e_image-folder-probe': (('small', 'gelu', 'plain'), 300, 15),
}
# Folder of the images, global batch (which the lr is for), decay of the average; by how the names end.
ON_IMAGENET = ('data/imagenet/train', 4096, 0.9999)
ELSEWHERE = {
    '_in1k-hf': ('data/imagenet_hf', 4096, 0.9999),
    '8xb256-bf16-coslr-400e_image-folder': ('data/images', 2048, 0.9999),
    '1xb256-bf16-coslr-300e_image-folder': ('data/images', 256, None),
    '1xb256-bf16-coslr-300e_image-folder-probe': ('data/images', 256, None),
}
# Tested in functions of their own.
OTHER_PRETRAINING = {
    'pretrain/nepa_base-p14_8xb128-accum4-bf16-coslr-100e_in1k-448x448',
    'pretrain/nepa_d192l6-p8_1xb128-bf16-coslr-600it_camvid-photos-64x64',
}
# lr at batch 1024, epochs, warm-up epochs, layer decay, its end, drop path.
FINETUNING = {
    FINETUNE: (6e-3, 100, 20, 0.65, None, 0.1),
    RELEASE_L: (4e-3, 100, 30, 0.75, None, 0.2),
    PAPER: (4e-3, 100, 5, 0.35, 1.0, 0.1),
    PAPER_L: (4e-3, 50, 5, 0.60, 1.0, 0.2),
}


def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def built(cfg: Config):
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        return MODELS.build(cfg.model)


def ema_decay(cfg: Config) -> float | None:
    """Decay per update of the weights, of the config's one EMAHook."""
    hooks = [HOOKS.get(h.type) and h for h in cfg.get('custom_hooks', []) if h.type == 'EMAHook']
    if not hooks:
        return None
    (hook,) = hooks
    assert hook.get('interval', 1) == cfg.optim_wrapper.get('accumulative_counts', 1)
    return 1 - hook.momentum


@pytest.mark.parametrize('path', LEAFS, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_the_name_of_every_leaf_tells_its_batch_and_precision(path):
    cfg = Config.fromfile(path)
    told = re.search(r'_(\d+)xb(\d+)(?:-accum(\d+))?(?:-fsdp)?(?:-cp)?(?:-compile)?-bf16-', path.stem)
    gpus, batch, accumulated = told.groups(default='1')
    assert cfg.train_dataloader.batch_size == int(batch)
    assert cfg.optim_wrapper.get('accumulative_counts', 1) == int(accumulated)
    assert cfg.auto_scale_lr.base_batch_size == int(gpus) * int(batch) * int(accumulated)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('AutocastOptimWrapper', 'bfloat16')


def setting(name: str) -> tuple[str, int, float | None]:
    return next((told for end, told in ELSEWHERE.items() if name.endswith(end)), ON_IMAGENET)


def test_no_pretraining_goes_untested():
    assert {f'pretrain/{p.stem}' for p in LEAFS if p.parent.name == 'pretrain'} == {*PRETRAINING, *OTHER_PRETRAINING}


@pytest.mark.parametrize('path', LEAFS, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_data_workers_get_one_opencv_thread_each(path):
    """What a worker makes of it: tests/test_engine/test_runner.py."""
    assert Config.fromfile(path).env_cfg.mp_cfg == dict(mp_start_method='fork', opencv_num_threads=1)


@pytest.mark.parametrize('name', PRETRAINING)
def test_pretraining(name):
    cfg, ((arch, mlp, qk_norm), epochs, _) = load(name), PRETRAINING[name]
    folder, batch, decay = setting(name)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, tuple(optimizer.betas), optimizer.weight_decay) == ('AdamW', (0.9, 0.95), 0.05)
    assert optimizer.lr == pytest.approx(3e-4 * batch / 256)
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.optim_wrapper.clip_grad.max_norm == 1.0
    assert cfg.train_cfg.max_epochs == epochs
    assert ema_decay(cfg) == (decay and pytest.approx(decay))
    assert (cfg.model.backbone.arch, cfg.model.backbone.mlp, cfg.model.backbone.qk_norm) == (arch, mlp, qk_norm)
    assert cfg.train_dataloader.dataset.data_root == folder
    assert bool(cfg.model.backbone.get('with_cp')) == ('-cp-' in name)
    sharded = ('NEPAFlexibleRunner', dict(type='FullyShardStrategy'))
    assert (cfg.runner_type, cfg.get('strategy')) == (sharded if '-fsdp-' in name else ('NEPARunner', None))


@pytest.mark.parametrize('name', FINETUNING)
def test_fine_tuning(name):
    cfg, (lr, epochs, _, _, _, drop_path) = load(name), FINETUNING[name]
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, tuple(optimizer.betas), optimizer.weight_decay) == ('AdamW', (0.9, 0.999), 0.05)
    assert optimizer.lr == pytest.approx(lr)
    assert cfg.auto_scale_lr.base_batch_size == 1024
    assert cfg.train_cfg.max_epochs == epochs
    assert ema_decay(cfg) == pytest.approx(0.9999)
    backbone = cfg.model.backbone
    assert (backbone.drop_path_rate, backbone.freeze_patch_embed) == (drop_path, True)
    assert not backbone.get('causal')
    assert load(name.replace('p14_', 'p14_causal_')).model.backbone.causal is True
    paper = 'swiglu' in name
    assert (backbone.out_type, cfg.model.head.get('norm', True)) == (('last_token', False), ('avg_featmap', True))[
        not paper
    ]
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert dict(cfg.model.train_cfg.augments) == dict(
        type='TimmMixup', mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5
    )
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['TimmRandAugment'].config_str == 'rand-m9-mstd0.5-inc1'
    assert steps['DecodeRandomResizedCrop'].interpolation == 'bicubic'
    assert ('TimmRandomErasing' in steps) is not paper
    if not paper:
        assert (steps['TimmRandomErasing'].prob, steps['TimmRandomErasing'].mode) == (0.25, 'pixel')


def rates_by_depth(cfg: Config, per_epoch: int, steps: int) -> dict[str, list[float]]:
    """Learning rate of some parameters at every update, through the config's constructor and schedulers."""
    model = built(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build(s, default_args=dict(optimizer=wrapper, epoch_length=per_epoch))
        for s in cfg.param_scheduler
    ]
    names = {id(p): n for n, p in model.named_parameters()}
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    found: dict[str, list[float]] = {n: [] for n, p in model.named_parameters() if p.requires_grad}
    for step in range(steps * accumulated):
        # The weights are updated in the last of the iterations that accumulate.
        if step % accumulated == accumulated - 1:
            for group in wrapper.optimizer.param_groups:
                for param in group['params']:
                    found[names[id(param)]].append(group['lr'])
        wrapper.optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


def cosine(step: int, warmup: int, total: int) -> float:
    """The release's curve: step / W, then half a cosine."""
    return step / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@pytest.mark.parametrize('name', PRETRAINING)
def test_schedule_of_pretraining(name):
    """Every update of every run sees the same curve, accumulated or not; an epoch stands for one update here."""
    cfg, (_, epochs, warmup) = load(name), PRETRAINING[name]
    # The schedule does not know the model's size: two groups of one parameter each are enough.
    cfg.model.backbone.arch = dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=8)
    got = rates_by_depth(cfg, cfg.optim_wrapper.get('accumulative_counts', 1), epochs)['backbone.cls_token']
    lr = {4096: 4.8e-3, 2048: 2.4e-3, 256: 3e-4}[setting(name)[1]]
    expected = [lr * cosine(step, warmup, epochs) for step in range(epochs)]
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize('name', FINETUNING)
def test_schedule_of_fine_tuning(name):
    """Each layer's rate in each of 100 (50) steps, one an epoch, by the formulas of paper and release."""
    cfg, (lr, epochs, warmup, decay, end, _) = load(name), FINETUNING[name]
    layers = 24 if 'large' in name else 12
    got = rates_by_depth(cfg, 1, epochs)
    for step in range(epochs):
        for depth in range(layers + 1):
            rate = decay if end is None else decay + (end - decay) * step / epochs
            own = warmup if end is not None else min(max(warmup - round(warmup * decay**depth), 1), epochs)
            expected = lr * rate**depth * cosine(step, own, epochs)
            one = 'cls_token' if depth == layers else f'layers.{layers - 1 - depth}.mlp.fc2.weight'
            assert got[f'backbone.{one}'][step] == pytest.approx(expected, rel=1e-9, abs=1e-15), (step, depth)
    top = [cosine(step, warmup if end is not None else 1, epochs) for step in range(epochs)]
    head = 1e-3 if end is None else lr
    for one, rate in (('head.fc.weight', head), ('head.fc.bias', head), ('backbone.norm.weight', head)):
        np.testing.assert_allclose(got[one], [rate * f for f in top], rtol=1e-9)
    if end is None:
        np.testing.assert_allclose(got['head.fc_norm.weight'], [lr * f for f in top], rtol=1e-9)
    assert not [n for n in got if 'patch_embed' in n]


# The paper's recipe whose rise is a line: epochs, layer decay at the start.
COSINE_RISE = {PAPER: (100, 0.35), PAPER_L: (50, 0.60)}


def with_cosine_rise(name: str) -> Config:
    return load(name.replace('p14_', 'p14_cosine-rise_'))


@pytest.mark.parametrize('name', COSINE_RISE)
def test_cosine_rise_is_the_paper_s_recipe_but_for_the_rise(name):
    cfg, line = with_cosine_rise(name), load(name)
    (schedule,), (told,) = cfg.param_scheduler, line.param_scheduler
    assert (schedule.pop('rise'), told.pop('rise')) == ('cosine', 'linear')
    assert cfg.to_dict() == line.to_dict()


@pytest.mark.parametrize('name', COSINE_RISE)
def test_schedule_of_the_cosine_rise(name):
    """Each layer's rate in each step, one an epoch; the layer decay goes from its start to 1 along half a cosine."""
    epochs, decay = COSINE_RISE[name]
    layers = 24 if 'large' in name else 12
    got = rates_by_depth(with_cosine_rise(name), 1, epochs)
    for step in range(epochs):
        rate = decay + (1 - decay) * 0.5 * (1 - math.cos(math.pi * step / epochs))
        for depth in range(layers + 1):
            one = 'cls_token' if depth == layers else f'layers.{layers - 1 - depth}.mlp.fc2.weight'
            expected = 4e-3 * rate**depth * cosine(step, 5, epochs)
            assert got[f'backbone.{one}'][step] == pytest.approx(expected, rel=1e-9, abs=1e-15), (step, depth)
        assert got['head.fc.weight'][step] == pytest.approx(4e-3 * cosine(step, 5, epochs), rel=1e-9, abs=1e-15)


def test_cosine_rise_is_the_release_s():
    """The leaf of B, its length cut to that of the reference numbers, against them."""
    told = json.loads((GOLDEN / 'lr_schedules.json').read_text())['rising_decay_cosine']
    cfg = with_cosine_rise(PAPER)
    cfg.param_scheduler[0].update(warmup=told['warmup_steps'], end=told['steps'])
    got = rates_by_depth(cfg, 1, told['steps'])
    by_depth = np.array([got[f'backbone.layers.{11 - depth}.mlp.fc2.weight'] for depth in range(5)]).T / 4e-3
    np.testing.assert_allclose(by_depth, told['lr_multiplier'], atol=1e-6)


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


@pytest.mark.parametrize('name', [*PRETRAINING, *FINETUNING])
def test_models_of_the_recipes(name):
    model = load(name).model
    assert list(model.data_preprocessor.mean) == list(model.data_preprocessor.std) == [127.5] * 3
    backbone = model.backbone
    assert backbone.patch_size == 14
    assert backbone.mlp == ('swiglu' if 'swiglu' in name else 'gelu')
    assert backbone.layer_scale_init == 1e-5
    assert dict(backbone.rope) == dict(base=100.0, rescale=2.0, shift=None, jitter=None)
    assert not backbone.get('pos_embed') and not backbone.get('mask_ratio')


def test_decoding_on_the_gpu_changes_nothing_else():
    told, cfg = load(PRETRAIN), load(f'{PRETRAIN}-gpu-jpeg')
    load_step, crop, pack = cfg.train_dataloader.dataset.pipeline
    assert (cfg.model.data_preprocessor.pop('type'), crop.pop('type')) == (
        'DecodeDataPreprocessor',
        'DrawRandomResizedCrop',
    )
    assert (pack.pop('algorithm_keys'), cfg.train_dataloader.pop('collate_fn').type) == (['crop'], 'collate_encoded')
    told.model.data_preprocessor.pop('type')
    told.train_dataloader.dataset.pipeline[1].pop('type')
    told.train_dataloader.pop('collate_fn')
    assert cfg.train_dataloader == told.train_dataloader and cfg.model == told.model
    assert cfg.optim_wrapper == told.optim_wrapper and cfg.custom_hooks == told.custom_hooks


def test_augmentation_of_pretraining():
    (crop,) = load(PRETRAIN).train_pipeline[1:-1]
    assert (crop.scale, tuple(crop.crop_ratio_range), tuple(crop.aspect_ratio_range)) == (
        224,
        (0.08, 1.0),
        (0.75, 4 / 3),
    )
    assert (crop.type, crop.interpolation, crop.flip_prob) == ('DecodeRandomResizedCrop', 'bilinear', 0.5)


@pytest.mark.parametrize(
    ('name', 'size', 'resized'),
    [(FINETUNE, (300, 400), (256, 341)), (RELEASE_L, (300, 400), (235, 235)), (PAPER, (400, 300), (341, 256))],
)
def test_evaluation_is_the_release_s_to_the_pixel(name, size, resized, tmp_path):
    """Pillow's bicubic resize and the centre crop, as torchvision does them for the release."""
    array = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / 'image.png')
    cfg = load(name)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
        got = pipeline(dict(img_path=str(tmp_path / 'image.png'), gt_label=0))['inputs']  # (3, 224, 224), BGR
    height, width = resized
    told = np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BICUBIC))
    top, left = round((height - 224) / 2), round((width - 224) / 2)
    told = told[top : top + 224, left : left + 224, ::-1].transpose(2, 0, 1)
    assert np.array_equal(got.numpy(), told)


def test_continued_pretraining():
    cfg = load('pretrain/nepa_base-p14_8xb128-accum4-bf16-coslr-100e_in1k-448x448')
    assert cfg.train_dataloader.dataset.pipeline[1].scale == 448
    assert cfg.model.backbone.init_cfg.checkpoint == f'work_dirs/{Path(PRETRAIN).name}/epoch_1600.pth'
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(4.8e-4)
    assert ema_decay(cfg) == pytest.approx(0.9999)


def test_pretraining_of_the_camvid_table():
    cfg = load('pretrain/nepa_d192l6-p8_1xb128-bf16-coslr-600it_camvid-photos-64x64')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, tuple(optimizer.betas), optimizer.weight_decay) == (
        'AdamW',
        1e-3,
        (0.9, 0.95),
        0.05,
    )
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size, cfg.train_cfg.max_iters) == (
        128,
        128,
        600,
    )
    warmup, cosine = cfg.param_scheduler
    assert (warmup.begin, warmup.end, cosine.begin, cosine.end, cosine.eta_min) == (0, 30, 30, 600, 0)
    roots = [part.data_root for part in cfg.train_dataloader.dataset.datasets]
    assert roots == ['data/camvid/images/train', 'data/photos']
    assert ema_decay(cfg) is None


@pytest.mark.parametrize(('share', 'batch', 'gpus', 'decay'), [('1', 128, 1, 0.999), ('10', 64, 8, 0.9995)])
def test_few_shot(share, batch, gpus, decay):
    cfg = load(f'classification/nepa_base-p14_{gpus}xb{batch}-bf16-coslr-100e_in1k-{share}percent')
    assert cfg.train_dataloader.dataset.ann_file == f'meta/train_{share}percent.txt'
    assert cfg.train_dataloader.dataset.data_prefix == 'train'
    assert 'ann_file' not in cfg.val_dataloader.dataset
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.5e-3 * gpus * batch / 256)
    assert ema_decay(cfg) == pytest.approx(decay)
    got = {name: rates[50] for name, rates in rates_by_depth(cfg, 1, 51).items()}
    # The release does not scale the classifier's rate with the batch.
    for name in ('head.fc.weight', 'head.fc.bias', 'backbone.norm.weight'):
        assert got[name] == pytest.approx(1e-3 * cosine(50, 1, 100))
    assert got['head.fc_norm.weight'] == pytest.approx(cfg.optim_wrapper.optimizer.lr * cosine(50, 1, 100))


# Row of the paper's tables 1a to 1e: what differs from the full method's backbone and loss, and the steps.
FULL = dict(causal=None, mlp='swiglu', qk_norm='plain', layer_scale_init=1e-5, rope=True, pos_embed=None, mask_ratio=0)
PLAIN = dict(mlp='gelu', qk_norm='none', layer_scale_init=None, rope=False, pos_embed=(16, 16))
ABLATION = {
    'nepa-swiglu_base-p14': (50, {}),
    'nepa-swiglu_base-p14_no-shift': (50, dict(shift=False)),
    'nepa-swiglu_base-p14_no-causal-mask': (50, dict(causal=False)),
    'nepa-swiglu_base-p14_no-stop-gradient': (50, dict(stop_gradient=False)),
    'nepa-swiglu_base-p14 ': (100, {}),
    'nepa_base-p14_plain': (100, PLAIN),
    'nepa_base-p14_layerscale': (100, {k: v for k, v in PLAIN.items() if k != 'layer_scale_init'}),
    'nepa_base-p14_layerscale-rope': (100, dict(mlp='gelu', qk_norm='none')),
    'nepa-swiglu_base-p14_layerscale-rope': (100, dict(qk_norm='none')),
    'nepa_base-p14_layerscale-rope-qknorm': (100, dict(mlp='gelu')),
    'nepa_base-p14_plain-mask40': (100, PLAIN | dict(mask_ratio=0.4)),
    'nepa_base-p14_plain-mask60': (100, PLAIN | dict(mask_ratio=0.6)),
}


def differences(backbone) -> dict:
    """What of FULL a backbone's config has otherwise."""
    given = {key: backbone.get(key, FULL[key]) for key in FULL}
    given['rope'] = bool(given['rope'])
    return {key: value for key, value in given.items() if value != FULL[key]}


@pytest.mark.parametrize('row', ABLATION)
def test_ablation_pretraining(row):
    steps, told = ABLATION[row]
    cfg = load(f'ablation/{row.strip()}_8xb256-bf16-coslr-{steps}k_in1k')
    loss = {k: cfg.model.head.loss[k] for k in ('shift', 'stop_gradient') if not cfg.model.head.loss[k]}
    assert differences(cfg.model.backbone) | loss == told
    assert cfg.train_cfg.max_iters == steps * 1000
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(3e-4 * 2048 / 256)
    (schedule,) = cfg.param_scheduler
    assert (schedule.warmup, schedule.end, schedule.by_epoch) == (0.025 * steps * 1000, steps * 1000, False)
    assert cfg.model.backbone.arch == 'base'


# Fine-tuning of the rows: the row whose pretraining it starts from, and what fine-tuning itself has otherwise.
ABLATION_FT = {
    'nepa-swiglu_base-p14_ft-50k': ('nepa-swiglu_base-p14', {}),
    'nepa-swiglu_base-p14_no-shift-ft-50k': ('nepa-swiglu_base-p14_no-shift', {}),
    'nepa-swiglu_base-p14_no-causal-mask-ft-50k': ('nepa-swiglu_base-p14_no-causal-mask', {}),
    'nepa-swiglu_base-p14_ft-100k': ('nepa-swiglu_base-p14 ', {}),
    'nepa-swiglu_base-p14_bidirectional-ft-100k': ('nepa-swiglu_base-p14 ', dict(causal=False)),
    'nepa_base-p14_plain-ft-100k': ('nepa_base-p14_plain', {}),
    'nepa_base-p14_layerscale-ft-100k': ('nepa_base-p14_layerscale', {}),
    'nepa_base-p14_layerscale-trained-embed-ft-100k': ('nepa_base-p14_layerscale', dict(freeze_patch_embed=False)),
    'nepa_base-p14_layerscale-rope-ft-100k': ('nepa_base-p14_layerscale-rope', {}),
    'nepa_base-p14_layerscale-rope-qknorm-ft-100k': ('nepa_base-p14_layerscale-rope-qknorm', {}),
    'nepa_base-p14_plain-mask40-ft-100k': ('nepa_base-p14_plain-mask40', {}),
    'nepa_base-p14_plain-mask60-ft-100k': ('nepa_base-p14_plain-mask60', {}),
}


@pytest.mark.parametrize('row', ABLATION_FT)
def test_ablation_fine_tuning(row):
    source, own = ABLATION_FT[row]
    steps, told = ABLATION[source]
    cfg = load(f'ablation/{row}_8xb128-bf16-coslr-100e_in1k')
    backbone = cfg.model.backbone
    run = f'{source.strip()}_8xb256-bf16-coslr-{steps}k_in1k'
    assert backbone.init_cfg.checkpoint == f'work_dirs/{run}/iter_{steps}000.pth'
    assert (ROOT / 'configs' / 'ablation' / f'{run}.py').is_file()
    assert backbone.causal is own.get('causal', True)
    assert backbone.freeze_patch_embed is own.get('freeze_patch_embed', True)
    # QK-norm gets a weight in fine-tuning (filled with ones); masking and the loss's switches end with pretraining.
    expected = {k: v for k, v in told.items() if k in PLAIN}
    got = {k: v for k, v in differences(backbone).items() if k != 'causal'}
    assert got == expected | ({} if expected.get('qk_norm') == 'none' else dict(qk_norm='affine'))
    recipe = load(PAPER)
    assert cfg.optim_wrapper == recipe.optim_wrapper and cfg.param_scheduler == recipe.param_scheduler


def test_ablation_of_layer_decay():
    cfg = load('ablation/nepa-swiglu_base-p14_layer-decay-fixed-ft_8xb128-bf16-coslr-100e_in1k')
    assert cfg.model == load(PAPER).model
    got = rates_by_depth(cfg, 1, 100)
    for layer in range(12):
        expected = [4e-3 * 0.65 ** (11 - layer) * cosine(step, 5, 100) for step in range(100)]
        np.testing.assert_allclose(got[f'backbone.layers.{layer}.mlp.fc2.weight'], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ('name', 'count'),
    [
        (PRETRAIN, 85_527_552),
        ('pretrain/nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k', 302_967_808),
        ('pretrain/nepa-swiglu_base-p14_8xb256-accum2-bf16-coslr-1600e_in1k', 113_875_968),
        ('pretrain/nepa-swiglu_large-p14_8xb128-accum4-bf16-coslr-800e_in1k', 403_726_336),
    ],
)
def test_parameters_of_the_pretrained_models(name, count):
    assert sum(p.numel() for p in built(load(name)).parameters()) == count
