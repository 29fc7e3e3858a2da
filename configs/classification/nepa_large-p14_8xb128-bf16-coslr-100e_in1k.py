# Fine-tuning of NEPA-L on ImageNet-1k, the release's recipe: what differs from B. Tests on 235 x 235 exactly (the
# aspect is not kept), centre crop 224.
_base_ = [
    '../_base_/models/nepa_large-p14_cls.py',
    '../_base_/datasets/imagenet_224_finetune_release.py',
    '../_base_/schedules/adamw_finetune_release.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    backbone=dict(
        drop_path_rate=0.2,
        freeze_patch_embed=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
    train_cfg=dict(augments=dict(type='TimmMixup', mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5)),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3 * 1024 / 256),
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        custom_keys={
            'head.fc.weight': dict(lr_mult=1e-3 / 4e-3),
            'head.fc.bias': dict(lr_mult=1e-3 / 4e-3),
            'backbone.norm.': dict(lr_mult=1e-3 / 4e-3),
        },
    ),
)
param_scheduler = [
    dict(
        type='LayerWiseCosineLR',
        warmup=30,
        end=100,
        layer_wise_warmup=True,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(235, 235), keep_ratio=False, backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
