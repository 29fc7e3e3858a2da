# Ablations, 100k steps: a plain ViT, GELU, without LayerScale, RoPE and QK-norm (78.2 in the paper). Assumed: its
# positions are the learned ones that the paper's text mentions; without them only the causal order would tell them.
_base_ = './nepa-swiglu_base-p14_8xb256-bf16-coslr-100k_in1k.py'
model = dict(backbone=dict(mlp='gelu', qk_norm='none', layer_scale_init=None, rope=None, pos_embed=(16, 16)))
