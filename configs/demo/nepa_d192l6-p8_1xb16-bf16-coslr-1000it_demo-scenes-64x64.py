# The demo's pretraining on two CPU cores: NEPA on the training scenes without their labels.
_base_ = ['../_base_/models/nepa_d192l6-p8.py', '../_base_/schedules/adamw_pretrain.py', '../_base_/cls_runtime.py']

demo_scenes = 'data/demo_scenes'
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root=demo_scenes,
        data_prefix='images/training',
        with_label=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomCrop', crop_size=64),  # at the scale that the segmentation will see
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)

# Small batches and a high rate: in a few minutes the number of steps counts more than the noise of each.
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=30, end=1000),
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1000)
auto_scale_lr = dict(base_batch_size=16)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=25),
    checkpoint=dict(by_epoch=False, interval=1000),
)
