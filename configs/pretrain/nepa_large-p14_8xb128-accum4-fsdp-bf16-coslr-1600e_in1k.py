# The release's NEPA-L, sharded over the GPUs (FSDP2): the same numbers, with an eighth of weights, gradients, optimizer
# and average on each. Verified on CPU processes over gloo; unverified on GPUs.
_base_ = './nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k.py'
runner_type = 'NEPAFlexibleRunner'
strategy = dict(type='FullyShardStrategy')
