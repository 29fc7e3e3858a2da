# Template for your own data set in ADE20K's folder form, one GPU. Copy it beside itself, and edit what stands above the
# line (--cfg-options comes too late for these: the config below is made from them).
#
#   data/my_dataset/images/{training,validation}/*.jpg         or .png, .jpeg, ...
#   data/my_dataset/annotations/{training,validation}/*.png    8-bit, one value per pixel, same stem as the image
#
# With `reduce_zero_label` as in ADE20K, 0 is "no label" (ignored) and class k of the list below is stored as k + 1.
# Where your labels start at 0 and 255 is "no label", set it to False.
_base_ = [
    '../_base_/models/upernet_nepa_base-p14.py',
    '../_base_/datasets/ade20k_518.py',
    '../_base_/schedules/adamw_seg_160k.py',
    '../_base_/seg_runtime.py',
]
data_root = 'data/my_dataset'
classes = ('wall', 'floor', 'window')
palette = [[120, 120, 120], [80, 50, 50], [230, 230, 230]]
reduce_zero_label = True
checkpoint = 'work_dirs/nepa_small-p14_1xb256-bf16-coslr-300e_image-folder/epoch_300.pth'
max_iters = 40000
# ---------------------------------------------------------------------------------------------------------------------

dataset = dict(
    type='FolderSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette),
    reduce_zero_label=reduce_zero_label,
)
train_dataloader = dict(batch_size=8, dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader

model = dict(
    backbone=dict(arch='small', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=384),
    decode_head=dict(in_channels=[384, 384, 384, 384], channels=384, num_classes=len(classes)),
    auxiliary_head=dict(in_channels=384, num_classes=len(classes)),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=4000)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=4000))
