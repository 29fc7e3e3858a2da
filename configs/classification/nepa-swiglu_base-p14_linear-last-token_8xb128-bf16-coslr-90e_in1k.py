# Linear probe of the paper's SwiGLU model, last token of the causal backbone (11.3 in the paper).
_base_ = './nepa-swiglu_base-p14_linear_8xb128-bf16-coslr-90e_in1k.py'
model = dict(backbone=dict(out_type='last_token'))
