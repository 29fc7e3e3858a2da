# The plain ViT with LayerScale (77.4 in the paper).
_base_ = './nepa_base-p14_plain_8xb256-bf16-coslr-100k_in1k.py'
model = dict(backbone=dict(layer_scale_init=1e-5))
