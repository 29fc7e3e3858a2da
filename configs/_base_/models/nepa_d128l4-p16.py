# NEPA for one CPU thread: 128 wide, 4 layers, patch 16.
_base_ = './nepa_base-p14.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=4, num_heads=2, feedforward_channels=512),
        patch_size=16,
        # The published 1e-5 needs tens of thousands of steps to open the branches; a few thousand learn little.
        layer_scale_init=0.1,
        # Pretraining, fine-tuning and evaluation see the same grid of 12 x 16 patches.
        rope=dict(rescale=None),
    ),
)
