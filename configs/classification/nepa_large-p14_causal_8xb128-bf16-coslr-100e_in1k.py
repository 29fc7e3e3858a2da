# The release's recipe with causal attention, as in pretraining, instead of bidirectional.
_base_ = './nepa_large-p14_8xb128-bf16-coslr-100e_in1k.py'
model = dict(backbone=dict(causal=True))
