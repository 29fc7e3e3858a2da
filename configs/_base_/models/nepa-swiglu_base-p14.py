# NEPA-B as the paper's main model: SwiGLU, of the same hidden width as GELU (the paper does not state it).
_base_ = './nepa_base-p14.py'
model = dict(backbone=dict(mlp='swiglu'))
