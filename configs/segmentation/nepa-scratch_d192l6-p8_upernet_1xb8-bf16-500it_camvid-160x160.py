# The same model, data and budget from random weights.
_base_ = './nepa_d192l6-p8_upernet_1xb8-bf16-500it_camvid-160x160.py'
model = dict(backbone=dict(init_cfg=None))
