# NEPA-B + UPerNet on ADE20K at 512 x 512, as the paper crops, with the patch embedding resampled from 14 to 16 pixels.
_base_ = [
    '../_base_/models/upernet_nepa_base-p16.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/adamw_seg_160k.py',
    '../_base_/seg_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k/epoch_1600.pth',
            resample_patch_embed=True,
        ),
    ),
)
