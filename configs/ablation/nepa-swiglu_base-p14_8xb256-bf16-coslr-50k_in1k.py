# Ablations, 50k steps: the full method (76.8 in the paper). ViT-B of the paper's main model, batch 2048. Not stated and
# assumed: the main run's rate per batch and share of warm-up (.025), its augmentation, and EMA .9999 beside.
_base_ = [
    '../_base_/models/nepa-swiglu_base-p14.py',
    '../_base_/datasets/image_folder_224.py',
    '../_base_/schedules/adamw_pretrain.py',
    '../_base_/cls_runtime.py',
]
train_dataloader = dict(
    batch_size=256,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(data_root='data/imagenet/train'),
)
optim_wrapper = dict(optimizer=dict(lr=3e-4 * 2048 / 256))
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=1250, end=50000, by_epoch=False)]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=50000)
auto_scale_lr = dict(base_batch_size=2048)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4)]
log_processor = dict(by_epoch=False)
default_hooks = dict(logger=dict(log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=5000))
