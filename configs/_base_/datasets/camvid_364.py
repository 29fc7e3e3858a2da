# CamVid, 367 + 101 images, 11 classes; `tools/dataset_converters/camvid.py` writes this folder, at the 480 x 360 that
# SegNet made customary (the raw frames have 960 x 720). The shorter side enters at 364, 26 patches of 14 pixels, and at
# scale 1 a crop holds the whole height. Predictions are compared at 480 x 360.
_base_ = './seg_518.py'
dataset_type = 'CamVidDataset'
data_root = 'data/camvid'
crop_size = (364, 364)
train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(type='LoadAnnotations'),
    dict(
        type='DecodeSegCrop',
        scale=(1456, 364),
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
    dict(type='Resize', scale=(1456, 364), keep_ratio=True),
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
            [dict(type='Resize', scale=(4 * 14 * n, 14 * n), keep_ratio=True) for n in (13, 20, 26, 33, 39, 46)],
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
    batch_size=8,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
