# Linear classifier on frozen features of NEPA-B: mean of the patch tokens of the last layer, bidirectional. No recipe
# is published for linear probes; BatchNorm without weights is MAE's, AdamW and 90 epochs without weight decay are ours.
_base_ = [
    '../_base_/models/nepa_base-p14_cls.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    backbone=dict(
        qk_norm='plain',
        frozen_stages=12,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
    neck=dict(type='ClsBatchNormNeck', input_features=768, affine=False),
    head=dict(
        _delete_=True,
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01),
    ),
)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.0, fused=True),
)
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=5, end=90, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=5)
auto_scale_lr = dict(base_batch_size=1024)
