# NEPA-B + UPerNet on COCO-Stuff 164k: mmseg's 80k iterations at batch 16.
_base_ = [
    '../_base_/models/upernet_nepa_base-p14.py',
    '../_base_/datasets/coco-stuff164k_518.py',
    '../_base_/schedules/adamw_seg_80k.py',
    '../_base_/seg_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
    decode_head=dict(num_classes=171),
    auxiliary_head=dict(num_classes=171),
)
default_hooks = dict(checkpoint=dict(interval=8000))
