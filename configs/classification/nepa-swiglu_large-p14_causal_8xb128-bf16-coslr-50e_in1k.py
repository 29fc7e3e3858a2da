# The paper's recipe with its default attention in classification, causal (84.1 in the paper).
_base_ = './nepa-swiglu_large-p14_8xb128-bf16-coslr-50e_in1k.py'
model = dict(backbone=dict(causal=True))
