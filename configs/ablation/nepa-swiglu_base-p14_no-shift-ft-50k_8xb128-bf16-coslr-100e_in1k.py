# Fine-tuning of the row without shift (diverges in the paper).
_base_ = './nepa-swiglu_base-p14_ft-50k_8xb128-bf16-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/nepa-swiglu_base-p14_no-shift_8xb256-bf16-coslr-50k_in1k/iter_50000.pth')
    )
)
