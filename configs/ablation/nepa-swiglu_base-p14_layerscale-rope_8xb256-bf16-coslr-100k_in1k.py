# LayerScale, RoPE and the gated MLP without QK-norm: training fails in the paper, so nothing is fine-tuned.
_base_ = './nepa-swiglu_base-p14_8xb256-bf16-coslr-100k_in1k.py'
model = dict(backbone=dict(qk_norm='none'))
