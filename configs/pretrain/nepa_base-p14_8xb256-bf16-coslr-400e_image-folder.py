# NEPA-B on your own images, eight GPUs: every image below data/images (train_dataloader.dataset.data_root), no labels.
# Batch and length are ours, for some hundred thousand images; the rest is the release's recipe.
_base_ = [
    '../_base_/models/nepa_base-p14.py',
    '../_base_/datasets/image_folder_224.py',
    '../_base_/schedules/adamw_pretrain.py',
    '../_base_/cls_runtime.py',
]
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=3e-4 * 2048 / 256))
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=10, end=400, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=400)
auto_scale_lr = dict(base_batch_size=2048)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4)]
default_hooks = dict(checkpoint=dict(interval=10))
