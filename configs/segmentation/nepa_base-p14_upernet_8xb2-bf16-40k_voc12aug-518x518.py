# NEPA-B + UPerNet on PASCAL VOC 2012 + aug: mmseg's 40k iterations at batch 16.
_base_ = [
    '../_base_/models/upernet_nepa_base-p14.py',
    '../_base_/datasets/pascal_voc12_aug_518.py',
    '../_base_/schedules/adamw_seg_40k.py',
    '../_base_/seg_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
    decode_head=dict(num_classes=21),
    auxiliary_head=dict(num_classes=21),
)
default_hooks = dict(checkpoint=dict(interval=4000))
