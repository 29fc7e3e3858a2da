# The demo's segmentation on two CPU cores: UPerNet from the NEPA pretraining beside this file.
_base_ = [
    '../_base_/models/upernet_nepa_d192l6-p8.py',
    '../_base_/schedules/adamw_seg_160k.py',
    '../_base_/seg_runtime.py',
]

demo_scenes = 'data/demo_scenes'
# As in data/demo_scenes/meta.json; a label file holds 1 + class, as ADE20K's do.
metainfo = dict(
    classes=(
        'brick',
        'grass',
        'gravel',
        'coins',
        'page',
        'tissue',
        'stars',
        'retina',
        'coffee',
        'cat',
        'motorcycle',
        'pagoda',
        'flower',
    ),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        data_root=demo_scenes,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        metainfo=metainfo,
        reduce_zero_label=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root=demo_scenes,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        metainfo=metainfo,
        reduce_zero_label=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/demo/pretrain/iter_1000.pth',
        ),
    ),
    decode_head=dict(num_classes=13),
    auxiliary_head=dict(num_classes=13),
    test_cfg=dict(_delete_=True, mode='whole'),
)
# No layer decay: after minutes of pretraining, as from random weights, the layers have far to go.
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=25),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=25, end=150),
]
train_cfg = dict(max_iters=150, val_interval=150)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=150, save_best=None),
)
