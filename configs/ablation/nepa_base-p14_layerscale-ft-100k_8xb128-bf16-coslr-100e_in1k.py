# Fine-tuning of the plain ViT with LayerScale, patch embedding frozen (77.4 in the paper, in the tables of components
# and of the patch embedding).
_base_ = './nepa_base-p14_plain-ft-100k_8xb128-bf16-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        layer_scale_init=1e-5,
        init_cfg=dict(checkpoint='work_dirs/nepa_base-p14_layerscale_8xb256-bf16-coslr-100k_in1k/iter_100000.pth'),
    ),
)
