# Layer decay at fine-tuning fixed at .65 (83.0 in the paper); rising from .35 to 1 it is
# nepa-swiglu_base-p14_8xb128-bf16-coslr-100e_in1k (83.8), the paper's main result, from which the rest is taken here:
# 1600 epochs, bidirectional.
_base_ = '../classification/nepa-swiglu_base-p14_8xb128-bf16-coslr-100e_in1k.py'
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=5, end=100, by_epoch=True, convert_to_iter_based=True)]
