# The demo's linear classifier on the frozen features of the NEPA pretraining beside this file.
_base_ = ['../_base_/models/nepa_d192l6-p8_linear.py', '../_base_/cls_runtime.py']

demo_scenes = 'data/demo_scenes'
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root=f'{demo_scenes}/classification/train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomCrop', crop_size=96),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root=f'{demo_scenes}/classification/val',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='CenterCrop', crop_size=96),
            dict(type='PackInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=1)
test_evaluator = val_evaluator

model = dict(
    data_preprocessor=dict(num_classes=13),
    # The middle of the network: the last layer lives in the space of the patch embedding.
    backbone=dict(out_indices=3, init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/pretrain/iter_1000.pth')),
    head=dict(num_classes=13),
)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.0, fused=True),
)
param_scheduler = dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=0, end=100)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=100, val_interval=100)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=False, interval=100),
)
