# The same, with the layers probed every 10 epochs on a small labelled set: data/probe/{train,val}/<class>/*. A few
# thousand images are enough; they need not be among those that are trained on.
_base_ = './nepa_small-p14_1xb256-bf16-coslr-300e_image-folder.py'
probe_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
custom_hooks = [
    dict(
        type='ProbeHook',
        interval=10,
        layers='all',
        pooling='avg',
        k=20,
        train_dataset=dict(type='CustomDataset', data_root='data/probe/train', pipeline=probe_pipeline),
        val_dataset=dict(type='CustomDataset', data_root='data/probe/val', pipeline=probe_pipeline),
    )
]
