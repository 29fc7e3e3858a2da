# The release's NEPA-B, JPEG files decoded on the GPU: the data workers read them and draw the crops. The same boxes and
# flips; pixels differ by the decoder. For machines with few cores per GPU (docs/augmentation.md). Unverified on GPUs.
_base_ = './nepa_base-p14_8xb512-bf16-coslr-1600e_in1k.py'
model = dict(data_preprocessor=dict(type='DecodeDataPreprocessor'))
train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(
        type='DrawRandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        interpolation='bilinear',
        flip_prob=0.5,
    ),
    dict(type='PackInputs', algorithm_keys=['crop']),
]
train_dataloader = dict(collate_fn=dict(type='collate_encoded'), dataset=dict(pipeline=train_pipeline))
