# Fine-tuning of the plain ViT with LayerScale and RoPE (80.2 in the paper).
_base_ = './nepa-swiglu_base-p14_ft-50k_8xb128-bf16-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        mlp='gelu',
        qk_norm='none',
        init_cfg=dict(checkpoint='work_dirs/nepa_base-p14_layerscale-rope_8xb256-bf16-coslr-100k_in1k/iter_100000.pth'),
    ),
)
