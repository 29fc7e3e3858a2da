# NEPA-S on ImageNet-1k for a small budget: a fifth of the release's epochs, its other numbers. Size and length are
# ours.
_base_ = './nepa_base-p14_8xb512-bf16-coslr-1600e_in1k.py'
model = dict(backbone=dict(arch='small'))
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=15, end=300, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=300)
