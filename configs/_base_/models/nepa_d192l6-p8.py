# NEPA at a size that two CPU cores pretrain in minutes: 192 wide, 6 layers, patch 8.
_base_ = './nepa_base-p14.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
        patch_size=8,
        # The published 1e-5 needs tens of thousands of steps to open the branches; a few hundred learn nothing.
        layer_scale_init=0.1,
    ),
)
