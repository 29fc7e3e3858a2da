# Ablations, 100k steps: all components, LayerScale, RoPE, SwiGLU and QK-norm (81.3 in the paper); also the causal row
# of the attention ablation.
_base_ = './nepa-swiglu_base-p14_8xb256-bf16-coslr-50k_in1k.py'
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=2500, end=100000, by_epoch=False)]
train_cfg = dict(max_iters=100000)
