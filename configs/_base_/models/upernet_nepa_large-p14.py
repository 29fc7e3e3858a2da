# UPerNet on NEPAViT-L/14 with affine QK-norm (the release's large pretraining); layers, widths and drop path as in
# mmseg's BEiT-L + UPerNet.
_base_ = './upernet_nepa_base-p14.py'
model = dict(
    backbone=dict(arch='large', qk_norm='affine', drop_path_rate=0.2, out_indices=(7, 11, 15, 23)),
    neck=dict(in_channels=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
