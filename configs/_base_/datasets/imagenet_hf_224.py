# ImageNet-1k as a Hugging Face data set in data/imagenet_hf, read without unpacking: saved with save_to_disk, or the
# hub's parquet files. Unlabelled, for pretraining; docs/datasets.md has the rest.
data_root = 'data/imagenet_hf'
train_pipeline = [
    dict(type='LoadImageFromBytes'),
    dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        interpolation='bilinear',
        backend='pillow',  # anti-aliased, as the release resizes
    ),
    dict(type='RandomFlip', prob=0.5),
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
    dataset=dict(
        type='HuggingFaceImageDataset', data_root=data_root, split='train', with_label=False, pipeline=train_pipeline
    ),
)
