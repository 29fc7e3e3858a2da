# NEPA-L on ImageNet-1k as the paper's main model: SwiGLU, 800 epochs; batch 4096 in four parts, for 80 GB.
# Every 4 epochs the iterations are whole updates.
_base_ = [
    '../_base_/models/nepa-swiglu_large-p14.py',
    '../_base_/datasets/image_folder_224.py',
    '../_base_/schedules/adamw_pretrain.py',
    '../_base_/cls_runtime.py',
]
train_dataloader = dict(batch_size=128, dataset=dict(data_root='data/imagenet/train'))
optim_wrapper = dict(accumulative_counts=4)
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=40, end=800, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=800)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4, interval=4)]
default_hooks = dict(checkpoint=dict(interval=8))
