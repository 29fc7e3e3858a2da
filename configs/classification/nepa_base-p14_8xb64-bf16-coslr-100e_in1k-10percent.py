# Fine-tuning of NEPA-B on 10 % of ImageNet's labels (tools/dataset_converters/imagenet_subset.py draws the list).
# Neither paper nor release does this; the recipe is the release's, the batch and the EMA fitted to 250 steps an epoch
# are ours.
_base_ = './nepa_base-p14_8xb128-bf16-coslr-100e_in1k.py'
train_dataloader = dict(batch_size=64, dataset=dict(ann_file='meta/train_10percent.txt'))
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3 * 512 / 256),
    # The classifier and the final norm learn at 1e-3 at any batch.
    paramwise_cfg=dict(
        custom_keys={
            'head.fc.weight': dict(lr_mult=1e-3 / 3e-3),
            'head.fc.bias': dict(lr_mult=1e-3 / 3e-3),
            'backbone.norm.': dict(lr_mult=1e-3 / 3e-3),
        },
    ),
)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=5e-4)]
auto_scale_lr = dict(base_batch_size=512)
