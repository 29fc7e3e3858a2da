# NEPA-S on your own images, one GPU: every image below data/images (train_dataloader.dataset.data_root), no labels.
_base_ = [
    '../_base_/models/nepa_base-p14.py',
    '../_base_/datasets/image_folder_224.py',
    '../_base_/schedules/adamw_pretrain.py',
    '../_base_/cls_runtime.py',
]
model = dict(backbone=dict(arch='small'))
train_dataloader = dict(batch_size=256, num_workers=8)
optim_wrapper = dict(optimizer=dict(lr=3e-4 * 256 / 256))
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=15, end=300, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=256)
default_hooks = dict(checkpoint=dict(interval=10))
