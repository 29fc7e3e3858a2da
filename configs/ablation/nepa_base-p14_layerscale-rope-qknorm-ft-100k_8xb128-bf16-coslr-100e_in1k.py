# Fine-tuning of LayerScale, RoPE and QK-norm with GELU (81.1 in the paper).
_base_ = './nepa-swiglu_base-p14_ft-50k_8xb128-bf16-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        mlp='gelu',
        init_cfg=dict(
            checkpoint='work_dirs/nepa_base-p14_layerscale-rope-qknorm_8xb256-bf16-coslr-100k_in1k/iter_100000.pth'
        ),
    ),
)
