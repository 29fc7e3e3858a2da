# The plain ViT with LayerScale, and RoPE in the place of learned positions (80.2 in the paper).
_base_ = './nepa-swiglu_base-p14_8xb256-bf16-coslr-100k_in1k.py'
model = dict(backbone=dict(mlp='gelu', qk_norm='none'))
