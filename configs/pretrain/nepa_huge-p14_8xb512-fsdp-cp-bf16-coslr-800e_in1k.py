# NEPA-H on ImageNet-1k: the recipe of NEPA-L with a budget of ours, untuned; sharded (FSDP2), with activation
# checkpointing. Unverified on GPUs.
_base_ = [
    '../_base_/models/nepa_huge-p14.py',
    '../_base_/datasets/image_folder_224.py',
    '../_base_/schedules/adamw_pretrain.py',
    '../_base_/cls_runtime.py',
]
runner_type = 'NEPAFlexibleRunner'
strategy = dict(type='FullyShardStrategy')
model = dict(backbone=dict(with_cp=True))
train_dataloader = dict(batch_size=512, dataset=dict(data_root='data/imagenet/train'))
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=40, end=800, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=800)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4)]
default_hooks = dict(checkpoint=dict(interval=10))
