# Fine-tuning after 60 % masking (75.7 in the paper); the input is whole again.
_base_ = './nepa_base-p14_plain-ft-100k_8xb128-bf16-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/nepa_base-p14_plain-mask60_8xb256-bf16-coslr-100k_in1k/iter_100000.pth')
    )
)
