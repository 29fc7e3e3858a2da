# The paper's variant: the same from its SwiGLU pretraining.
_base_ = './nepa_base-p16_upernet_8xb2-bf16-160k_ade20k-512x512.py'
model = dict(
    backbone=dict(
        mlp='swiglu',
        init_cfg=dict(checkpoint='work_dirs/nepa-swiglu_base-p14_8xb256-accum2-bf16-coslr-1600e_in1k/epoch_1600.pth'),
    ),
)
