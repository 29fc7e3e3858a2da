# Fine-tuning of NEPA-B on ImageNet-1k, bidirectional, mean pooling, patch embedding frozen, layer decay .65.
_base_ = [
    '../_base_/models/nepa_base-p14_cls.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    backbone=dict(
        drop_path_rate=0.1,
        freeze_patch_embed=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
    train_cfg=dict(
        augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)],
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[128, 128, 128], interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        # Per pixel N(0, 1) after normalisation, as timm erases.
        fill_color=[127.5, 127.5, 127.5],
        fill_std=[127.5, 127.5, 127.5],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1.5e-3 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='BackboneLayerDecayConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        # The classifier and the final norm learn at 1e-3 (at the base batch; --auto-scale-lr scales them too).
        custom_keys={
            'head.fc.weight': dict(lr_mult=1 / 6),
            'head.fc.bias': dict(lr_mult=1 / 6, decay_mult=0.0),
            'backbone.norm.': dict(lr_mult=1 / 6, decay_mult=0.0),
        },
    ),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=20, end=100, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=10)
auto_scale_lr = dict(base_batch_size=1024)
custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=1e-4)]
