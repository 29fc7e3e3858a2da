# The paper's fine-tuning of B: AdamW, lr 1e-3 x batch / 256, 100 epochs of which 5 warm up, a layer decay that rises
# linearly from .35 to 1 over training, EMA .9999. What the paper does not state is the release's: clip 1.0, no weight
# decay on biases, norms and LayerScale; the classifier learns at the full rate.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='BackboneLayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.35, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(
        type='LayerWiseCosineLR',
        warmup=5,
        end=100,
        rise='linear',
        layer_decay_end=1.0,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=10)
auto_scale_lr = dict(base_batch_size=1024)
# mmengine's momentum is 1 - decay. Validation and test use the average; the checkpoint holds both.
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4)]
