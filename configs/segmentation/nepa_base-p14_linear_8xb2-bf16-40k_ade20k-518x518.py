# Linear segmentation on frozen features of NEPA-B, ADE20K: 40k iterations at batch 16, AdamW 1e-3, as linear heads on
# frozen ViTs are usually trained.
_base_ = [
    '../_base_/models/linear_nepa_base-p14.py',
    '../_base_/datasets/ade20k_518.py',
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
)
# One layer learns: nothing to decay over. (A new dict: what the schedule says of layers is not for this.)
optim_wrapper = dict(
    _delete_=True,
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4, fused=True),
)
default_hooks = dict(checkpoint=dict(interval=4000))
