# The release's NEPA-B on four GPUs: the batch of 4096 in four parts. A step is an update of the weights, for schedule
# and EMA alike; every 20 epochs the iterations are whole updates, so a resumed run loses no gradient.
_base_ = './nepa_base-p14_8xb512-bf16-coslr-1600e_in1k.py'
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(accumulative_counts=4)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4, interval=4)]
default_hooks = dict(checkpoint=dict(interval=20))
