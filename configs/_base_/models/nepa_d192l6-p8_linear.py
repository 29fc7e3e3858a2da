# A linear classifier on frozen features of the CPU-sized backbone; BatchNorm without weights first, as MAE's linear
# probe has.
_base_ = './nepa_base-p14_cls.py'
model = dict(
    data_preprocessor=dict(num_classes=10),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
        patch_size=8,
        qk_norm='plain',
        layer_scale_init=0.1,
        frozen_stages=6,
    ),
    neck=dict(type='ClsBatchNormNeck', input_features=192, affine=False),
    head=dict(
        _delete_=True,
        type='LinearClsHead',
        num_classes=10,
        in_channels=192,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01),
    ),
)
