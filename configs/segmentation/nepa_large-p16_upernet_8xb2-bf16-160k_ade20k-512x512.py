# NEPA-L + UPerNet on ADE20K at 512 x 512, as the paper crops, with the patch embedding resampled from 14 to 16 pixels.
_base_ = [
    '../_base_/models/upernet_nepa_large-p16.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/adamw_seg_160k.py',
    '../_base_/seg_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k/epoch_1600.pth',
            resample_patch_embed=True,
        ),
    ),
)
# mmseg's BEiT-L + UPerNet: a fifth of Base's lr, and hardly any decay over 24 layers.
optim_wrapper = dict(optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
