# NEPA-B on ImageNet-1k, the release's recipe: GELU, plain QK-norm, batch 4096, 1600 epochs, EMA .9999 beside.
_base_ = [
    '../_base_/models/nepa_base-p14.py',
    '../_base_/datasets/image_folder_224.py',
    '../_base_/schedules/adamw_pretrain.py',
    '../_base_/cls_runtime.py',
]
train_dataloader = dict(dataset=dict(data_root='data/imagenet/train'))
# mmengine's momentum is 1 - decay. The checkpoint's `state_dict` holds the average, `ema_state_dict` the raw weights;
# transfer takes the raw ones unless init_cfg says weights='ema'.
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4)]
default_hooks = dict(checkpoint=dict(interval=10))
