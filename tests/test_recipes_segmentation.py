"""The numbers of the segmentation recipes: sizes, schedules, layer decay, classes, what they start from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope, init_default_scope
from mmseg.registry import DATASETS, TRANSFORMS

import nepa_mm  # noqa: F401  registers what the configs build
from nepa_mm.checkpoints import CheckpointError, load_weights
from nepa_mm.models import NEPAViT
from tests.golden import ROOT
from tests.test_configs import shrink, source_of

FOLDER = ROOT / 'configs' / 'segmentation'
BASE_LAYERS, LARGE_LAYERS = (3, 5, 7, 11), (7, 11, 15, 23)


@dataclass
class Told:
    """What a recipe's name, its README and its sources say of it."""

    data: str
    classes: int
    crop: int
    stride: int
    scale: tuple[int, int]
    iters: int
    batch: int
    lr: float = 1e-4
    decay: float | None = 0.65
    drop_path: float = 0.1
    layers: tuple[int, ...] = BASE_LAYERS


def large(*args, **kwargs) -> Told:
    return Told(*args, **kwargs, lr=2e-5, decay=0.95, drop_path=0.2, layers=LARGE_LAYERS)


ADE_518 = ('ADE20KDataset', 150, 518, 345, (2072, 518), 160000, 16)
ADE_512 = ('ADE20KDataset', 150, 512, 341, (2048, 512), 160000, 16)
CITYSCAPES = ('CityscapesDataset', 19, 770, 513, (2048, 1024), 80000, 8)
VOC = ('PascalVOCDataset', 21, 518, 345, (2072, 518), 40000, 16)
CAMVID = ('CamVidDataset', 11, 364, 242, (1456, 364), 20000, 8)
COCO_STUFF = ('COCOStuffDataset', 171, 518, 345, (2072, 518), 80000, 16)
TABLE = {
    'nepa_base-p14_upernet_8xb2-bf16-160k_ade20k-518x518': Told(*ADE_518),
    'nepa_large-p14_upernet_8xb2-bf16-160k_ade20k-518x518': large(*ADE_518),
    'nepa-swiglu_base-p14_upernet_8xb2-bf16-160k_ade20k-518x518': Told(*ADE_518),
    'nepa-swiglu_large-p14_upernet_8xb2-bf16-160k_ade20k-518x518': large(*ADE_518),
    'nepa_base-p16_upernet_8xb2-bf16-160k_ade20k-512x512': Told(*ADE_512),
    'nepa_large-p16_upernet_8xb2-bf16-160k_ade20k-512x512': large(*ADE_512),
    'nepa-swiglu_base-p16_upernet_8xb2-bf16-160k_ade20k-512x512': Told(*ADE_512),
    'nepa-swiglu_large-p16_upernet_8xb2-bf16-160k_ade20k-512x512': large(*ADE_512),
    'nepa_base-p14_upernet_4xb2-bf16-80k_cityscapes-770x770': Told(*CITYSCAPES),
    'nepa_large-p14_upernet_4xb2-bf16-80k_cityscapes-770x770': large(*CITYSCAPES),
    'nepa_base-p14_upernet_8xb2-bf16-40k_voc12aug-518x518': Told(*VOC),
    'nepa_large-p14_upernet_8xb2-bf16-40k_voc12aug-518x518': large(*VOC),
    'nepa_base-p14_upernet_8xb2-bf16-80k_coco-stuff164k-518x518': Told(*COCO_STUFF),
    'nepa_large-p14_upernet_8xb2-bf16-80k_coco-stuff164k-518x518': large(*COCO_STUFF),
    'nepa_base-p14_upernet_1xb8-bf16-20k_camvid-364x364': Told(*CAMVID),
    # Frozen: nothing to decay over layers, no drop path.
    'nepa_base-p14_linear_8xb2-bf16-40k_ade20k-518x518': Told(
        *ADE_518[:5], iters=40000, batch=16, lr=1e-3, decay=None, drop_path=0.0
    ),
}
TEMPLATE = 'nepa_small-p14_upernet_1xb8-bf16-40k_my-dataset-518x518'
LINEAR = [p.stem for p in sorted(FOLDER.glob('*_linear_*.py'))]


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / f'{name}.py')


def dataset_of(loader) -> list[dict]:
    """The data sets of a loader, those of a ConcatDataset one by one."""
    return loader.dataset.get('datasets') or [loader.dataset]


def step(pipeline: list[dict], kind: str) -> dict:
    (found,) = (t for t in pipeline if t.type == kind)
    return found


def test_every_recipe_on_a_public_data_set_is_told_of():
    assert set(TABLE) == {p.stem for p in FOLDER.glob('*.py') if 'd192l6' not in p.stem and 'my-dataset' not in p.stem}


@pytest.mark.parametrize('name', TABLE)
def test_sizes_agree_in_training_and_test(name):
    cfg, told = load(name), TABLE[name]
    model, patch = cfg.model, cfg.model.backbone.patch_size
    assert name.endswith(f'-{told.crop}x{told.crop}') and f'-p{patch}_' in name
    assert told.crop % patch == 0 and model.neck.patch_size == patch
    assert model.data_preprocessor.size == (told.crop, told.crop)
    assert model.test_cfg == dict(mode='slide', crop_size=(told.crop,) * 2, stride=(told.stride,) * 2)
    assert told.stride == told.crop * 2 // 3
    for dataset in dataset_of(cfg.train_dataloader):
        crop = step(dataset.pipeline, 'DecodeSegCrop')
        assert (crop.scale, crop.ratio_range, crop.cat_max_ratio) == (told.scale, (0.5, 2.0), 0.75)
        assert (crop.crop_size, crop.flip_prob) == ((told.crop, told.crop), 0.5)
    (tested,) = dataset_of(cfg.test_dataloader)
    assert step(tested.pipeline, 'Resize').scale == told.scale
    # The label after the resize: the prediction is compared at the label's own size.
    kinds = [t.type for t in tested.pipeline]
    assert kinds.index('LoadAnnotations') > kinds.index('Resize')


@pytest.mark.parametrize('name', TABLE)
def test_multi_scale_and_flip(name):
    """Mmseg's six ratios, both flips, shorter sides of whole patches: twelve views of an image."""
    cfg, told = load(name), TABLE[name]
    scales, flips, *_ = cfg.tta_pipeline[-1].transforms
    assert [f.prob for f in flips] == [0.0, 1.0] and cfg.tta_model.type == 'SegTTAModel'
    for resize, ratio in zip(scales, (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), strict=True):
        long, short = resize.scale
        assert short % cfg.model.backbone.patch_size == 0
        assert short / told.scale[1] == pytest.approx(ratio, rel=0.03)
        assert long / short == told.scale[0] / told.scale[1] and resize.keep_ratio


def test_twelve_views_reach_the_model():
    cfg = load('nepa_base-p14_upernet_8xb2-bf16-160k_ade20k-518x518')
    with DefaultScope.overwrite_default_scope('mmseg'):
        augment = TRANSFORMS.build(cfg.tta_pipeline[-1])
    image = np.zeros((100, 150, 3), dtype=np.uint8)
    image[:, :75] = 255
    # The label is in memory: nothing to load it from here.
    for views in augment.subroutines:
        views.transforms = [t for t in views.transforms if type(t).__name__ != 'LoadAnnotations']
    out = augment(dict(img=image, img_shape=(100, 150), ori_shape=(100, 150), img_path='a.jpg'))
    shapes = [tuple(x.shape[1:]) for x in out['inputs']]
    assert shapes == [(14 * n, round(14 * n * 1.5)) for n in (19, 28, 37, 46, 56, 65) for _ in range(2)]
    assert [bool(x[0, 0, 0] == 255) for x in out['inputs']] == [True, False] * 6


@pytest.mark.parametrize('name', TABLE)
def test_schedule_and_batch(name):
    cfg, told = load(name), TABLE[name]
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.begin, warm_up.end) == ('LinearLR', 1e-6, 0, 1500)
    assert (decay.type, decay.power, decay.eta_min, decay.begin, decay.end) == ('PolyLR', 1.0, 0.0, 1500, told.iters)
    assert not warm_up.by_epoch and not decay.by_epoch
    assert cfg.train_cfg.max_iters == told.iters and f'-{told.iters // 1000}k_' in name
    assert told.iters % cfg.train_cfg.val_interval == told.iters % cfg.default_hooks.checkpoint.interval == 0
    gpus, per_gpu = (int(n) for n in name.split('_')[3].split('-')[0].split('xb'))
    assert cfg.train_dataloader.batch_size == per_gpu
    assert cfg.auto_scale_lr.base_batch_size == gpus * per_gpu == told.batch
    assert cfg.val_dataloader.batch_size == 1 and cfg.val_evaluator == dict(type='IoUMetric', iou_metrics=['mIoU'])


@pytest.mark.parametrize('name', TABLE)
def test_optimiser_and_what_is_read(name):
    cfg, told = load(name), TABLE[name]
    wrapper, backbone = cfg.optim_wrapper, cfg.model.backbone
    assert (wrapper.type, wrapper.dtype, wrapper.optimizer.type) == ('AutocastOptimWrapper', 'bfloat16', 'AdamW')
    assert (wrapper.optimizer.lr, tuple(wrapper.optimizer.betas)) == (told.lr, (0.9, 0.999))
    assert wrapper.optimizer.weight_decay == (1e-4 if told.decay is None else 0.05)
    assert (wrapper.get('paramwise_cfg') or {}).get('layer_decay_rate') == told.decay
    assert backbone.get('drop_path_rate', 0.0) == told.drop_path
    assert tuple(backbone.out_indices) == told.layers
    assert not backbone.get('causal')


@pytest.mark.parametrize('name', TABLE)
def test_classes_are_those_of_the_data_set(name):
    cfg, told = load(name), TABLE[name]
    with DefaultScope.overwrite_default_scope('mmseg'):
        kinds = {d.type for key in ('train', 'val', 'test') for d in dataset_of(cfg[f'{key}_dataloader'])}
        assert kinds == {told.data}
        assert len(DATASETS.get(told.data).METAINFO['classes']) == told.classes
    heads = [cfg.model[h] for h in ('decode_head', 'auxiliary_head') if h in cfg.model]
    assert [h.num_classes for h in heads] == [told.classes] * len(heads)


@pytest.mark.parametrize('name', TABLE)
def test_backbone_is_that_of_the_pretraining(name):
    backbone = load(name).model.backbone
    source = source_of(backbone.init_cfg.checkpoint).model.backbone
    for key in ('arch', 'mlp', 'qk_norm', 'layer_scale_init', 'rope'):
        assert backbone[key] == source[key], key
    assert (backbone.mlp == 'swiglu') == name.startswith('nepa-swiglu')
    assert bool(backbone.init_cfg.get('resample_patch_embed')) == (backbone.patch_size != source.patch_size)


def test_layer_decay_of_large():
    """Mmseg's count: .95 per layer from the last layer on, heads and neck at the full rate."""
    cfg = load('nepa_large-p14_upernet_8xb2-bf16-160k_ade20k-518x518')
    init_default_scope('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    rates = {names[id(p)]: g['lr'] for g in groups for p in g['params']}
    assert rates['decode_head.conv_seg.weight'] == rates['neck.upsamples.0.0.weight'] == 2e-5
    for layer in range(24):
        assert rates[f'backbone.layers.{layer}.attn.qkv.weight'] == pytest.approx(2e-5 * 0.95 ** (24 - layer))
        assert rates[f'backbone.layers.{layer}.attn.q_norm.weight'] == pytest.approx(2e-5 * 0.95 ** (24 - layer))
    assert rates['backbone.patch_embed.proj.weight'] == pytest.approx(2e-5 * 0.95**25)
    (decode, auxiliary) = (cfg.model[h] for h in ('decode_head', 'auxiliary_head'))
    assert (decode.channels, auxiliary.channels, auxiliary.loss_decode.loss_weight) == (1024, 256, 0.4)


@pytest.mark.parametrize('name', LINEAR)
def test_linear_recipes_train_the_classifier_alone(name):
    cfg = load(name)
    shrink(cfg)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    learns = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learns == {'decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'}
    assert model.decode_head.conv_seg.in_channels == 4 * 16 and not list(model.neck.parameters())
    assert model.decode_head.dropout is None and not model.with_auxiliary_head
    assert cfg.model.neck.strides == (cfg.model.backbone.patch_size,) * 4


def test_control_of_the_linear_recipe_differs_in_nothing_but_its_start():
    name = 'nepa_d192l6-p8_linear_1xb8-bf16-500it_camvid-160x160'
    trained, scratch = load(name), load(name.replace('nepa_', 'nepa-scratch_'))
    assert scratch.model.backbone.pop('init_cfg') is None and trained.model.backbone.pop('init_cfg')
    assert trained.to_dict() == scratch.to_dict()


def test_template_is_the_recipe_for_other_classes():
    """With its settings as they stand: ADE20K's sizes, schedule form and pipelines."""
    template, recipe = load(TEMPLATE), load('nepa_base-p14_upernet_8xb2-bf16-160k_ade20k-518x518')
    assert template.train_dataloader.dataset.pipeline == recipe.train_dataloader.dataset.pipeline
    for key in ('val_dataloader', 'test_dataloader'):
        assert template[key].dataset.pipeline == recipe[key].dataset.pipeline
    assert template.model.test_cfg == recipe.model.test_cfg
    assert template.optim_wrapper == recipe.optim_wrapper
    short = [resize.scale[1] for resize in template.tta_pipeline[-1].transforms[0]]
    assert short == [resize.scale[1] for resize in recipe.tta_pipeline[-1].transforms[0]]


def test_settings_above_the_line_reach_everything(tmp_path: Path):
    """What a user edits in the copied template arrives wherever it has to be the same."""
    text = (FOLDER / f'{TEMPLATE}.py').read_text().replace("'../_base_", f"'{ROOT}/configs/_base_")
    edits = {
        "data_root = 'data/my_dataset'": "data_root = 'data/fields'",
        "classes = ('wall', 'floor', 'window')": "classes = ('crop', 'weed')",
        'palette = [[120, 120, 120], [80, 50, 50], [230, 230, 230]]': 'palette = [[0, 0, 0], [9, 9, 9]]',
        'reduce_zero_label = True': 'reduce_zero_label = False',
        'scale = (2072, 518)': 'scale = (1344, 672)',
        'crop = 518': 'crop = 448',
        "arch = 'small'": "arch = 'base'",
        'width = 384': 'width = 768',
        'max_iters = 40000': 'max_iters = 2000',
    }
    for old, new in edits.items():
        assert text.count(old + '\n') == 1, old
        text = text.replace(old + '\n', new + '\n')
    copy = tmp_path / 'my_dataset.py'
    copy.write_text(text)
    cfg = Config.fromfile(copy)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = cfg[key].dataset
        assert (dataset.data_root, dataset.reduce_zero_label) == ('data/fields', False)
        assert dataset.metainfo == dict(classes=('crop', 'weed'), palette=[[0, 0, 0], [9, 9, 9]])
    crop = step(cfg.train_dataloader.dataset.pipeline, 'DecodeSegCrop')
    assert (crop.scale, crop.crop_size) == ((1344, 672), (448, 448))
    assert step(cfg.test_dataloader.dataset.pipeline, 'Resize').scale == (1344, 672)
    assert cfg.tta_pipeline[-1].transforms[0][0].scale == (672, 336)
    model = cfg.model
    assert model.data_preprocessor.size == model.test_cfg.crop_size == (448, 448)
    assert model.test_cfg.stride == (298, 298)
    assert (model.backbone.arch, model.neck.in_channels, model.decode_head.in_channels) == ('base', 768, [768] * 4)
    assert [model[h].num_classes for h in ('decode_head', 'auxiliary_head')] == [2, 2]
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.end, decay.begin, decay.end, cfg.train_cfg.max_iters) == (200, 200, 2000, 2000)
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 200


@pytest.mark.parametrize('max_iters', [3, 10, 19])
def test_a_first_try_of_the_template_reaches_its_rate(max_iters: int, tmp_path: Path):
    """A warm-up of mmengine's over one step would stay at its start, and one over none is refused."""
    text = (FOLDER / f'{TEMPLATE}.py').read_text().replace("'../_base_", f"'{ROOT}/configs/_base_")
    copy = tmp_path / 'my_dataset.py'
    copy.write_text(text.replace('max_iters = 40000', f'max_iters = {max_iters}'))
    cfg = Config.fromfile(copy)
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 1
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [PARAM_SCHEDULERS.build(part, default_args=dict(optimizer=optimizer)) for part in cfg.param_scheduler]
    rates = []
    for _ in range(max_iters):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert max(rates) > 0.5


def test_metafile_tells_of_every_recipe():
    metafile = yaml.safe_load((FOLDER / 'metafile.yml').read_text())
    told = {model['Name']: model for model in metafile['Models']}
    assert set(told) == {p.stem for p in FOLDER.glob('*.py')} - {TEMPLATE}
    readme = (FOLDER / 'README.md').read_text()
    for name, model in told.items():
        cfg = load(name)
        assert model['Config'] == f'configs/segmentation/{name}.py' and f']({name}.py)' in readme
        assert model['Metadata']['Batch Size'] == cfg.auto_scale_lr.base_batch_size
        assert model['Metadata']['Iterations'] == cfg.train_cfg.max_iters
        cfg.model.backbone.init_cfg = None
        with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
            parameters = MODELS.build(cfg.model).parameters()
        assert model['Metadata']['Parameters'] == sum(p.numel() for p in parameters)


def test_recipe_at_512_starts_from_pretraining_at_14(tmp_path: Path):
    """Resampled to 16 pixels, the patch embedding answers to an enlarged patch as it did to the patch."""
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    pretrained = NEPAViT(arch=arch, patch_size=14)
    path = tmp_path / 'pretrained.pth'
    torch.save(dict(state_dict={'backbone.' + k: v for k, v in pretrained.state_dict().items()}, meta={}), path)

    init_cfg = load('nepa_base-p16_upernet_8xb2-bf16-160k_ade20k-512x512').model.backbone.init_cfg
    model = NEPAViT(arch=arch, patch_size=16, init_cfg=dict(init_cfg, checkpoint=str(path)))
    model.init_weights()
    small = torch.randn(3, 1, 3, 1, 1).expand(-1, -1, -1, 14, 14) + torch.linspace(-1, 1, 14)
    for patch in small:  # a colour and a ramp
        large_patch = torch.nn.functional.interpolate(patch, size=(16, 16), mode='bicubic', antialias=True)
        torch.testing.assert_close(model.patch_embed(large_patch), pretrained.patch_embed(patch), atol=1e-4, rtol=1e-3)
    kept = {k for k, v in pretrained.state_dict().items() if torch.equal(v, model.state_dict()[k])}
    assert set(pretrained.state_dict()) - kept == {'patch_embed.proj.weight'}
    report = load_weights(NEPAViT(arch=arch, patch_size=16), path, resample_patch_embed=True)
    assert report.resampled == ['patch_embed.proj.weight']
    with pytest.raises(CheckpointError, match='resample_patch_embed'):
        load_weights(NEPAViT(arch=arch, patch_size=16), path)
