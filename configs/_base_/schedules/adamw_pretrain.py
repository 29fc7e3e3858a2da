# Pretraining of the paper and the release: AdamW, lr 3e-4 x batch / 256, cosine to 0 after a linear warm-up, clip 1.0,
# bf16.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=3e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    # No decay on biases and 1-D parameters (norms, LayerScale); the 3-D BOS token is decayed, as in the release.
    constructor='BackboneLayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type='LayerWiseCosineLR', warmup=40, end=1600, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(by_epoch=True, max_epochs=1600)
# The lr above belongs to this global batch; `--auto-scale-lr` fits it to yours.
auto_scale_lr = dict(base_batch_size=4096)
