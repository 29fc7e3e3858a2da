# All four layers of the small-budget backbone under one hidden 1 x 1 layer: where minutes decide, the time should train
# the backbone and not the head.
_base_ = './upernet_nepa_base-p14.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(192, 256)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=4, num_heads=2, feedforward_channels=512),
        patch_size=16,
        # For a start from random weights, which does better at 1 than at 0.1; a checkpoint brings its own.
        layer_scale_init=1.0,
        rope=dict(rescale=None),
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(in_channels=128, patch_size=16, strides=(16, 16, 16, 16), upsample='none'),
    decode_head=dict(
        _delete_=True,
        type='AsyncFCNHead',
        in_channels=[128, 128, 128, 128],
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        channels=128,
        num_convs=1,
        kernel_size=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
    test_cfg=dict(_delete_=True, mode='whole'),
)
