# ImageNet-1k with the paper's augmentation for fine-tuning: RandAugment (9, .5) in timm's form. (Mixup and CutMix mix
# whole batches: they stand in the leafs, at model.train_cfg.)
_base_ = './imagenet_224.py'
train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(type='DecodeRandomResizedCrop', scale=224, interpolation='bicubic', flip_prob=0.5),
    dict(type='TimmRandAugment', config_str='rand-m9-mstd0.5-inc1'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
