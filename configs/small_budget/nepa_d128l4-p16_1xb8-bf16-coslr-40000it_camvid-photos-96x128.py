# The pretraining beside this file at half the resolution: a quarter of the patches, 40 minutes instead of two hours.
# Fine-tuning stays at 192 x 256 (positions are normalised to the image).
_base_ = './nepa_d128l4-p16_1xb8-bf16-coslr-40000it_camvid-photos-192x256.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=(96, 128),
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
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[dict(type='RepeatDataset', dataset=frames, times=11), photos],
    ),
)
