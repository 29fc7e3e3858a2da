# Linear classifier on frozen features of NEPA-L: mean of the patch tokens of the eleventh of 24 layers, where an audio
# replication of the method (arXiv 2608.19863) found its probes highest.
_base_ = './nepa_base-p14_linear_8xb128-bf16-coslr-90e_in1k.py'
model = dict(
    backbone=dict(
        arch='large',
        qk_norm='affine',
        frozen_stages=24,
        out_indices=10,
        init_cfg=dict(checkpoint='work_dirs/nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    neck=dict(input_features=1024),
    head=dict(in_channels=1024),
)
