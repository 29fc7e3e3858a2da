# NEPA-B on ImageNet-1k as the paper's main model: SwiGLU; the rest is the release's recipe. Batch 4096 in two parts,
# for 80 GB.
_base_ = [
    '../_base_/models/nepa-swiglu_base-p14.py',
    '../_base_/datasets/image_folder_224.py',
    '../_base_/schedules/adamw_pretrain.py',
    '../_base_/cls_runtime.py',
]
train_dataloader = dict(batch_size=256, dataset=dict(data_root='data/imagenet/train'))
optim_wrapper = dict(accumulative_counts=2)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4, interval=2)]
default_hooks = dict(checkpoint=dict(interval=10))
