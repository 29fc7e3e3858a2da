# The same model, data and budget from random weights.
_base_ = './nepa_d128l4-p16_fcn_1xb8-bf16-150it_camvid-192x256.py'
model = dict(backbone=dict(init_cfg=None))
