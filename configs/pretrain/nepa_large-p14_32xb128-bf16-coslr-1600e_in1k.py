# The release's NEPA-L on four nodes of eight GPUs (NNODES=4, see tools/dist_train.sh): the same batch of 4096, in one
# part.
_base_ = './nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k.py'
optim_wrapper = dict(accumulative_counts=1)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4)]
