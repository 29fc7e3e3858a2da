# Fine-tuning of the plain ViT at 100k steps (78.2 in the paper, in the tables of components and of masking).
_base_ = './nepa-swiglu_base-p14_ft-50k_8xb128-bf16-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        mlp='gelu',
        qk_norm='none',
        layer_scale_init=None,
        rope=None,
        pos_embed=(16, 16),
        init_cfg=dict(checkpoint='work_dirs/nepa_base-p14_plain_8xb256-bf16-coslr-100k_in1k/iter_100000.pth'),
    ),
)
