# The linear classifier on the frozen CPU-sized backbone.
_base_ = './linear_nepa_base-p14.py'
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
        patch_size=8,
        layer_scale_init=0.1,
        out_indices=(1, 2, 3, 5),
        frozen_stages=6,
    ),
    neck=dict(in_channels=192, patch_size=8, strides=(8, 8, 8, 8)),
    decode_head=dict(in_channels=[192, 192, 192, 192]),
    test_cfg=dict(mode='slide', crop_size=(160, 160), stride=(107, 107)),
)
