# LayerScale, RoPE and QK-norm with GELU (81.1 in the paper).
_base_ = './nepa-swiglu_base-p14_8xb256-bf16-coslr-100k_in1k.py'
model = dict(backbone=dict(mlp='gelu'))
