# Fine-tuning of the row without causal mask (73.6 in the paper); causal here, as in every row.
_base_ = './nepa-swiglu_base-p14_ft-50k_8xb128-bf16-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/nepa-swiglu_base-p14_no-causal-mask_8xb256-bf16-coslr-50k_in1k/iter_50000.pth'
        )
    )
)
