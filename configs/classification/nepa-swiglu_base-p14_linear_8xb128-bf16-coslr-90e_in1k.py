# Linear probe of the paper's SwiGLU model, mean of the patch tokens of the last layer (14.1 in the paper). The
# attention is not stated; assumed is the one that the frozen weights were trained with, causal.
_base_ = './nepa_base-p14_linear_8xb128-bf16-coslr-90e_in1k.py'
model = dict(
    backbone=dict(
        causal=True,
        mlp='swiglu',
        init_cfg=dict(checkpoint='work_dirs/nepa-swiglu_base-p14_8xb256-accum2-bf16-coslr-1600e_in1k/epoch_1600.pth'),
    ),
)
