# 160k iterations at batch 16: AdamW, layer decay .65, linear warm-up, polynomial decay (mmseg's MAE-B + UPerNet), bf16.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='BackboneLayerDecayConstructor',
    # `decay_last_layer`: the rate falls from the last layer on, as in mmseg's own constructor.
    paramwise_cfg=dict(layer_decay_rate=0.65, decay_last_layer=True, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=160000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(base_batch_size=16)
