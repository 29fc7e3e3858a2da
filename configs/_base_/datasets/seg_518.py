# Segmentation at 518 x 518, 37 patches of 14 pixels, in training and test alike: mmseg's pipelines for 512 with 518 in
# its place. The data sets that inherit from this name their files.
crop_size = (518, 518)
train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(type='LoadAnnotations'),
    dict(
        type='DecodeSegCrop',
        scale=(2072, 518),
        ratio_range=(0.5, 2.0),
        crop_size=crop_size,
        cat_max_ratio=0.75,
        flip_prob=0.5,
    ),
    dict(type='TablePhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2072, 518), keep_ratio=True),
    # After the resize: the prediction is compared at the label's own size.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            # mmseg's ratios .5, .75, 1, 1.25, 1.5 and 1.75, with the shorter side rounded to whole patches.
            [dict(type='Resize', scale=(4 * 14 * n, 14 * n), keep_ratio=True) for n in (19, 28, 37, 46, 56, 65)],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
