# The release's NEPA-B on one GPU: the batch of 4096 in sixteen parts.
_base_ = './nepa_base-p14_4xb256-accum4-bf16-coslr-1600e_in1k.py'
optim_wrapper = dict(accumulative_counts=16)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4, interval=16)]
