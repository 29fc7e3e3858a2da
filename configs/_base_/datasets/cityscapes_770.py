# Cityscapes, 2,975 + 500 images of 2048 x 1024, 19 classes, with labels as train ids. Crops of 770 x 770: 55 patches of
# 14 pixels, next to the 768 x 768 that mmseg's ViTs (SETR) take. Tested at full size.
_base_ = './seg_518.py'
dataset_type = 'CityscapesDataset'
data_root = 'data/cityscapes'
crop_size = (770, 770)
train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(type='LoadAnnotations'),
    dict(
        type='DecodeSegCrop',
        scale=(2048, 1024),
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
    dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
    # After the resize: the prediction is compared at the label's own size.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            # mmseg's ratios .5, .75, 1, 1.25, 1.5 and 1.75, rounded to whole patches.
            [dict(type='Resize', scale=(2 * 14 * n, 14 * n), keep_ratio=True) for n in (37, 55, 73, 91, 110, 128)],
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
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
