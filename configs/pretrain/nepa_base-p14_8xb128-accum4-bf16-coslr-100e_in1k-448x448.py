# NEPA-B, pretraining continued at 448 x 448 (32 x 32 patches; RoPE needs no change) from a checkpoint: the raw weights
# of init_cfg, which may be any file, release directory, hf:// or https:// address. Neither paper nor release does this;
# a tenth of the pretraining's rate over 100 epochs is our choice, not tuned.
_base_ = './nepa_base-p14_8xb512-bf16-coslr-1600e_in1k.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
)
train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(
        type='DecodeRandomResizedCrop',
        scale=448,
        crop_ratio_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        interpolation='bilinear',
        flip_prob=0.5,
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=3e-5 * 4096 / 256), accumulative_counts=4)
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=5, end=100, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=100)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4, interval=4)]
default_hooks = dict(checkpoint=dict(interval=4))
