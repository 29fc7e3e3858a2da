# Fine-tuning of all components at 100k steps, causal attention (81.3 in the paper, in the tables of components and of
# attention).
_base_ = './nepa-swiglu_base-p14_ft-50k_8xb128-bf16-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/nepa-swiglu_base-p14_8xb256-bf16-coslr-100k_in1k/iter_100000.pth')
    )
)
