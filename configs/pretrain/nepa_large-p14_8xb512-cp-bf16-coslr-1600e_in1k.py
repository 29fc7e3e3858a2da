# The release's NEPA-L with the batch of 4096 in one part: activation checkpointing keeps one tensor per layer and
# computes the rest again in the backward pass. Unverified on GPUs.
_base_ = './nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k.py'
model = dict(backbone=dict(with_cp=True))
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(accumulative_counts=1)
custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4)]
