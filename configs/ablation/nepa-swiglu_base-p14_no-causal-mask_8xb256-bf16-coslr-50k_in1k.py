# Without the causal mask: every position sees its target (73.6 in the paper).
_base_ = './nepa-swiglu_base-p14_8xb256-bf16-coslr-50k_in1k.py'
model = dict(backbone=dict(causal=False))
