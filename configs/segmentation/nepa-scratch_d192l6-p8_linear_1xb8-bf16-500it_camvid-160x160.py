# The control: the same classifier on frozen random weights.
_base_ = './nepa_d192l6-p8_linear_1xb8-bf16-500it_camvid-160x160.py'
model = dict(backbone=dict(init_cfg=None))
