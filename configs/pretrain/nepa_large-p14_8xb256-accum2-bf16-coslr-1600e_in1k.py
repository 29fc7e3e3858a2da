# NEPA-L on ImageNet-1k, the release's recipe: GELU, QK-norm with a weight, batch 4096 in two parts, 1600 epochs.
_base_ = [
    '../_base_/models/nepa_large-p14.py',
    '../_base_/datasets/image_folder_224.py',
    '../_base_/schedules/adamw_pretrain.py',
    '../_base_/cls_runtime.py',
]
train_dataloader = dict(batch_size=256, dataset=dict(data_root='data/imagenet/train'))
optim_wrapper = dict(accumulative_counts=2)
# The average counts updates, not iterations.
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4, interval=2)]
default_hooks = dict(checkpoint=dict(interval=10))
