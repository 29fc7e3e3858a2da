# Fine-tuning of the ablations' full method at 50k steps (76.8 in the paper). Not stated and assumed: the paper's
# fine-tuning recipe of B with causal attention.
_base_ = '../classification/nepa-swiglu_base-p14_causal_8xb128-bf16-coslr-100e_in1k.py'
model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/nepa-swiglu_base-p14_8xb256-bf16-coslr-50k_in1k/iter_50000.pth'))
)
