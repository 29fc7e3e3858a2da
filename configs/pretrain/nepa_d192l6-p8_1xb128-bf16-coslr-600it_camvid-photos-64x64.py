# Unlabelled pretraining for the CamVid table on two CPU cores: CamVid's training images and 1,000 photographs, crops of
# 64 px.
_base_ = ['../_base_/models/nepa_d192l6-p8.py', '../_base_/schedules/adamw_pretrain.py', '../_base_/cls_runtime.py']

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.2, 1.0), interpolation='bilinear', backend='pillow'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(type='CustomDataset', data_root=root, with_label=False, pipeline=train_pipeline)
            for root in ('data/camvid/images/train', 'data/photos')
        ],
    ),
)

# A run of a few hundred steps needs a higher rate than the recipe's 1.5e-4 at this batch.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=30, end=600),
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=600)
auto_scale_lr = dict(base_batch_size=128)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=False, interval=200),
)
