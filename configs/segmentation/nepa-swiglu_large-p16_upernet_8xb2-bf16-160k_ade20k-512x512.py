# The paper's variant: the same from its SwiGLU pretraining.
_base_ = './nepa_large-p16_upernet_8xb2-bf16-160k_ade20k-512x512.py'
model = dict(
    backbone=dict(
        qk_norm='plain',
        mlp='swiglu',
        init_cfg=dict(checkpoint='work_dirs/nepa-swiglu_large-p14_8xb128-accum4-bf16-coslr-800e_in1k/epoch_800.pth'),
    ),
)
