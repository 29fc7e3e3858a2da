# The same model, data and budget from random weights.
_base_ = './nepa_d192l6-p8_upernet_1xb16-bf16-150it_demo-scenes-128x128.py'
model = dict(backbone=dict(init_cfg=None))
