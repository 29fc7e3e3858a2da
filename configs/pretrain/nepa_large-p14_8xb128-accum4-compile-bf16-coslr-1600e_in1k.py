# The release's NEPA-L, its loss through torch.compile (docs/clusters.md). Unverified on GPUs.
_base_ = './nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k.py'
compile = True
