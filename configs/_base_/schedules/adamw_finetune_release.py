# The release's fine-tuning of B: AdamW, lr 1.5e-3 x batch / 256, layer decay .65 with a layer-wise warm-up over 20 % of
# 100 epochs, head lr 1e-3, clip 1.0, EMA .9999.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1.5e-3 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='BackboneLayerDecayConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        # The classifier and the final norm learn at 1e-3 (at the base batch; --auto-scale-lr scales them too).
        custom_keys={
            'head.fc.weight': dict(lr_mult=1e-3 / 6e-3),
            'head.fc.bias': dict(lr_mult=1e-3 / 6e-3, decay_mult=0.0),
            'backbone.norm.': dict(lr_mult=1e-3 / 6e-3, decay_mult=0.0),
        },
    ),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(
        type='LayerWiseCosineLR',
        warmup=20,
        end=100,
        layer_wise_warmup=True,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=10)
auto_scale_lr = dict(base_batch_size=1024)
# mmengine's momentum is 1 - decay. Validation and test use the average; the checkpoint holds both.
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4)]
