# NEPA-B + UPerNet on ADE20K, bidirectional, 160k iterations at batch 16; crops of 37 x 37 whole patches.
_base_ = [
    '../_base_/models/upernet_nepa_base-p14.py',
    '../_base_/datasets/ade20k_518.py',
    '../_base_/schedules/adamw_seg_160k.py',
    '../_base_/seg_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
)
