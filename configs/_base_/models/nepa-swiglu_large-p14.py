# NEPA-L as the paper's main model: SwiGLU; plain QK-norm, of which the paper does not say whether it has a weight.
_base_ = './nepa_large-p14.py'
model = dict(backbone=dict(mlp='swiglu', qk_norm='plain'))
