# NEPA-L + UPerNet on Cityscapes: mmseg's 80k iterations at batch 8; crops of 55 x 55 whole patches.
_base_ = [
    '../_base_/models/upernet_nepa_large-p14.py',
    '../_base_/datasets/cityscapes_770.py',
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
    data_preprocessor=dict(size=(770, 770)),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
    test_cfg=dict(crop_size=(770, 770), stride=(513, 513)),
)
# mmseg's BEiT-L + UPerNet: a fifth of Base's lr, and hardly any decay over 24 layers.
optim_wrapper = dict(optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=8000))
