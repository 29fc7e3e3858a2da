# Random masking of 40 % of the input embeddings (76.4 in the paper). Model and length are not stated; assumed is the
# plain ViT at 100k steps, whose figure is that of 0 % masking, 78.2.
_base_ = './nepa_base-p14_plain_8xb256-bf16-coslr-100k_in1k.py'
model = dict(backbone=dict(mask_ratio=0.4))
