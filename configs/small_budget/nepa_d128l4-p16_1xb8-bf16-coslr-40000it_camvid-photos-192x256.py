# Pretraining for the small-budget table: CamVid's training frames and 1,000 photographs, without labels, at the size
# that the segmentation will see.
_base_ = ['../_base_/models/nepa_d128l4-p16.py', '../_base_/schedules/adamw_pretrain.py', '../_base_/cls_runtime.py']

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=(192, 256),
        crop_ratio_range=(0.3, 1.0),
        aspect_ratio_range=(1.0, 1.6),
        interpolation='bilinear',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
frames = dict(type='CustomDataset', data_root='data/camvid/images/train', with_label=False, pipeline=train_pipeline)
photos = dict(type='CustomDataset', data_root='data/photos', with_label=False, pipeline=train_pipeline)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    # Four frames of the street for each photograph.
    dataset=dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=frames, times=11), photos]),
)

# A run of thousands of steps needs a higher rate than the recipe's 9.4e-6 at this batch.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=100, end=40000),
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=40000)
auto_scale_lr = dict(base_batch_size=8)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(by_epoch=False, interval=10000, max_keep_ckpts=-1),
)
