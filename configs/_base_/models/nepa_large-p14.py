# NEPA-L: ViT-L/14, GELU, QK-norm with a weight (the release's large pretraining).
_base_ = './nepa_base-p14.py'
model = dict(backbone=dict(arch='large', qk_norm='affine'))
