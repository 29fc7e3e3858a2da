# Attention at fine-tuning: bidirectional (82.5 in the paper).
_base_ = './nepa-swiglu_base-p14_ft-100k_8xb128-bf16-coslr-100e_in1k.py'
model = dict(backbone=dict(causal=False))
