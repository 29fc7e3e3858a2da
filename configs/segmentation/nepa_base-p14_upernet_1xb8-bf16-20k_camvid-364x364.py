# NEPA-B + UPerNet on CamVid, one GPU; crops of 26 x 26 whole patches. mmseg has no recipe for CamVid: the budget, the
# shortest of its schedules at batch 8 (436 passes over 367 images), is ours and untuned, as are ADE20K's lr and decay.
_base_ = [
    '../_base_/models/upernet_nepa_base-p14.py',
    '../_base_/datasets/camvid_364.py',
    '../_base_/schedules/adamw_seg_20k.py',
    '../_base_/seg_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
    data_preprocessor=dict(size=(364, 364)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
    test_cfg=dict(crop_size=(364, 364), stride=(242, 242)),
)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=2000))
