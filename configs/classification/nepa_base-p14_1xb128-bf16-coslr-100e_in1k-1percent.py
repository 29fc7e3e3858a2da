# Fine-tuning of NEPA-B on 1 % of ImageNet's labels (tools/dataset_converters/imagenet_subset.py draws the list).
# Neither paper nor release does this; the recipe is the release's, the batch and the EMA fitted to 100 steps an epoch
# are ours.
_base_ = './nepa_base-p14_8xb128-bf16-coslr-100e_in1k.py'
train_dataloader = dict(dataset=dict(ann_file='meta/train_1percent.txt'))
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3 * 128 / 256),
    # The classifier and the final norm learn at 1e-3 at any batch.
    paramwise_cfg=dict(
        custom_keys={
            'head.fc.weight': dict(lr_mult=1e-3 / 7.5e-4),
            'head.fc.bias': dict(lr_mult=1e-3 / 7.5e-4),
            'backbone.norm.': dict(lr_mult=1e-3 / 7.5e-4),
        },
    ),
)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-3)]
auto_scale_lr = dict(base_batch_size=128)
