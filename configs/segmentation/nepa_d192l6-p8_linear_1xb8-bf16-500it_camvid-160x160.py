# Linear segmentation on frozen features, CamVid, on two CPU cores; from the NEPA pretraining of
# configs/pretrain/nepa_d192l6-p8_1xb128-bf16-coslr-600it_camvid-photos-64x64.py.
_base_ = [
    '../_base_/models/linear_nepa_d192l6-p8.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_seg_160k.py',
    '../_base_/seg_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_d192l6-p8_1xb128-bf16-coslr-600it_camvid-photos-64x64/iter_600.pth',
        ),
    ),
    decode_head=dict(num_classes=11),
    test_cfg=dict(_delete_=True, mode='whole'),
)
optim_wrapper = dict(
    _delete_=True,
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4, fused=True),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=50, end=500),
]
train_cfg = dict(max_iters=500, val_interval=500)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=500, save_best=None),
)
