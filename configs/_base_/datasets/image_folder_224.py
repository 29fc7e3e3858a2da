# Unlabelled images: every image below one folder, any depth, any names.
data_root = 'data/images'
train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(
        type='DecodeRandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        interpolation='bilinear',
        flip_prob=0.5,
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=512,
    num_workers=12,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root=data_root, with_label=False, pipeline=train_pipeline),
)
