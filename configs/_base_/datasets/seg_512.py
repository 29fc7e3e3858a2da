# Segmentation at 512 x 512, as in mmseg, for backbones of patch 16.
_base_ = './seg_518.py'
crop_size = (512, 512)
train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(type='LoadAnnotations'),
    dict(
        type='DecodeSegCrop',
        scale=(2048, 512),
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
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    # After the resize: the prediction is compared at the label's own size.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            # .5 to 1.75 of 512: all are whole patches of 16.
            [dict(type='Resize', scale=(4 * 16 * n, 16 * n), keep_ratio=True) for n in (16, 24, 32, 40, 48, 56)],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
