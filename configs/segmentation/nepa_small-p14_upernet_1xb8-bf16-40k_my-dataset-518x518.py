# Template for your own data set in ADE20K's folder form, one GPU (docs/segment_your_data.md leads through it). Copy it
# beside itself, and edit what stands above the line (--cfg-options comes too late for these: the config below is made
# from them).
#
#   data/my_dataset/images/{training,validation}/*.jpg         or .png, .jpeg, ...
#   data/my_dataset/annotations/{training,validation}/*.png    8-bit, one value per pixel, same stem as the image
#
# With `reduce_zero_label` as in ADE20K, 0 is "no label" (ignored) and class k of the list below is stored as k + 1.
# Where your labels start at 0 and 255 is "no label", set it to False.
_base_ = [
    '../_base_/models/upernet_nepa_base-p14.py',
    '../_base_/datasets/seg_518.py',
    '../_base_/schedules/adamw_seg_160k.py',
    '../_base_/seg_runtime.py',
]
data_root = 'data/my_dataset'
classes = ('wall', 'floor', 'window')
palette = [[120, 120, 120], [80, 50, 50], [230, 230, 230]]
reduce_zero_label = True
# Images are resized to fit into `scale` (longer, shorter side) and cut to `crop`, whole patches of 14, in training and
# test alike.
scale = (2072, 518)
crop = 518
# Your own pretraining, or the authors': 'base', 768, 'hf://SixAILab/nepa-base-patch14-224'.
arch = 'small'
width = 384
checkpoint = 'work_dirs/nepa_small-p14_1xb256-bf16-coslr-300e_image-folder/epoch_300.pth'
# 10 for a first try.
max_iters = 40000
# ---------------------------------------------------------------------------------------------------------------------

train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(type='LoadAnnotations'),
    dict(
        type='DecodeSegCrop',
        scale=scale,
        ratio_range=(0.5, 2.0),
        crop_size=(crop, crop),
        cat_max_ratio=0.75,
        flip_prob=0.5,
    ),
    dict(type='TablePhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    # After the resize: the prediction is compared at the label's own size.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=tuple(int(side * ratio / 14 + 0.5) * 14 for side in scale), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

dataset = dict(
    type='FolderSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette),
    reduce_zero_label=reduce_zero_label,
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
        **dataset,
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
        **dataset,
    ),
)
test_dataloader = val_dataloader

model = dict(
    data_preprocessor=dict(size=(crop, crop)),
    backbone=dict(arch=arch, init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=width),
    decode_head=dict(in_channels=[width] * 4, channels=width, num_classes=len(classes)),
    auxiliary_head=dict(in_channels=width, num_classes=len(classes)),
    test_cfg=dict(crop_size=(crop, crop), stride=(crop * 2 // 3,) * 2),
)
every = max(1, max_iters // 10)
# mmengine's warm-up over a single step would leave the rate where it starts.
warmup = min(1500, max(2, every))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=warmup),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=warmup, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=every)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=every))
