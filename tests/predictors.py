"""Tiny models that predict something, their configs and images: what the tests of prediction share."""

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import nepa_mm  # noqa: F401  registers

BACKBONE = """
custom_imports = dict(imports=['nepa_mm'], allow_failed_imports=False)
backbone = dict(
    type='NEPAViT',
    arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
    patch_size=4,
    layer_scale_init=0.5,
)
"""

PRETRAIN = (
    BACKBONE
    + """
default_scope = 'mmpretrain'
model = dict(
    type='NEPA',
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True),
    backbone=backbone,
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root='images',
        with_label=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=28, interpolation='bicubic', backend='pillow'),
            dict(type='PackInputs'),
        ],
    ),
)
"""
)

CLASSIFY = (
    BACKBONE
    + """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True, num_classes=4
    ),
    backbone=dict(out_type='avg_featmap', **backbone),
    head=dict(type='NEPAClsHead', num_classes=4, in_channels=16, topk=(1,)),
)
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root='classes',
        metainfo=dict(classes=('ant', 'bee', 'cat', 'dog')),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='ResizeEdge', scale=32, edge='short', backend='pillow', interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=28),
            dict(type='PackInputs'),
        ],
    ),
)
test_evaluator = dict(type='Accuracy', topk=(1,))
test_cfg = dict()
"""
)

SEGMENT = (
    BACKBONE
    + """
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, size=(40, 40)
    ),
    backbone=dict(out_type='featmap', out_indices=(2,), **backbone),
    decode_head=dict(
        type='FCNHead', in_channels=16, in_index=0, channels=16, num_convs=0, concat_input=False, num_classes=3,
        norm_cfg=dict(type='SyncBN'), loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 40), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='FolderSegDataset',
        data_root='scenes',
        data_prefix=dict(img_path='images', seg_map_path='annotations'),
        metainfo=dict(classes=('sky', 'road', 'tree'), palette=[[0, 0, 250], [250, 0, 0], [0, 250, 0]]),
        reduce_zero_label=True,
        pipeline=test_pipeline,
    ),
)
test_cfg = dict(type='TestLoop')
test_evaluator = dict(type='IoUMetric')
visualizer = dict(type='SegLocalVisualizer', name='predictors', vis_backends=[])
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(64, side), keep_ratio=True) for side in (32, 40)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
"""
)

CONFIGS = dict(pretrain=PRETRAIN, classify=CLASSIFY, segment=SEGMENT)
# Height and width of the images; two sizes, so that not all fit into one batch.
SEED = 7  # of weights whose predictions vary
SIZES = ((30, 44), (30, 44), (36, 28))


def make_site(folder: Path) -> Path:
    """Fill a folder with configs, checkpoints of random weights and images.

    ``{pretrain,classify,segment}.py`` and ``.pth``; ``scenes/{images,annotations}/{0,1,2}.png``, labels 0 (none) to 3;
    ``classes/{ant,bee,cat,dog}/{0,1}.png``; all images are noise of large grains, so predictions vary within them.
    """
    for name, text in CONFIGS.items():
        (folder / f'{name}.py').write_text(text)
        save_checkpoint(folder / f'{name}.py', folder / f'{name}.pth')
    rng = np.random.default_rng(0)
    for i, size in enumerate(SIZES):
        write(folder / f'scenes/images/{i}.png', noise(rng, size))
        write(folder / f'scenes/annotations/{i}.png', rng.integers(0, 4, size, dtype=np.uint8))
    for name in ('ant', 'bee', 'cat', 'dog'):
        for i in range(2):
            write(folder / f'classes/{name}/{i}.png', noise(rng, SIZES[i]))
    return folder


def noise(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """An image of coloured squares."""
    grains = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(grains, size[::-1], interpolation=cv2.INTER_NEAREST)


def write(path: Path, image: np.ndarray) -> None:
    """Write an image, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def save_checkpoint(config: Path, file: Path, **beside) -> dict[str, torch.Tensor]:
    """Write weights under which classes differ from patch to patch; returns them."""
    cfg = Config.fromfile(config)
    torch.manual_seed(SEED)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    weights = {
        name: value + torch.randn(value.shape) * (0.6 if 'head' in name and 'bias' not in name else 0.2)
        if value.is_floating_point() and 'running' not in name
        else value
        for name, value in model.state_dict().items()
    }
    torch.save(dict(dict(state_dict=weights, meta={}), **beside), file)
    return weights
