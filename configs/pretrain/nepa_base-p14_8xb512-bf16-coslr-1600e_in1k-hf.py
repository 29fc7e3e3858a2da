# NEPA-B, the release's recipe, on ImageNet-1k as a Hugging Face data set in data/imagenet_hf.
_base_ = [
    '../_base_/models/nepa_base-p14.py',
    '../_base_/datasets/imagenet_hf_224.py',
    '../_base_/schedules/adamw_pretrain.py',
    '../_base_/cls_runtime.py',
]
# See nepa_base-p14_8xb512-bf16-coslr-1600e_in1k.py for what a checkpoint of this holds.
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4)]
default_hooks = dict(checkpoint=dict(interval=10))
