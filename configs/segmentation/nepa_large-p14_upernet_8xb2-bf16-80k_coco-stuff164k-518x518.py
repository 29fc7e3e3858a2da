# NEPA-L + UPerNet on COCO-Stuff 164k: mmseg's 80k iterations at batch 16.
_base_ = [
    '../_base_/models/upernet_nepa_large-p14.py',
    '../_base_/datasets/coco-stuff164k_518.py',
    '../_base_/schedules/adamw_seg_80k.py',
    '../_base_/seg_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
    decode_head=dict(num_classes=171),
    auxiliary_head=dict(num_classes=171),
)
# mmseg's BEiT-L + UPerNet: a fifth of Base's lr, and hardly any decay over 24 layers.
optim_wrapper = dict(optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
default_hooks = dict(checkpoint=dict(interval=8000))
