# The same on the last patch token of the causal backbone, the only one that has seen the whole image.
_base_ = './nepa_base-p14_linear_8xb128-bf16-coslr-90e_in1k.py'
model = dict(backbone=dict(causal=True, out_type='last_token'))
