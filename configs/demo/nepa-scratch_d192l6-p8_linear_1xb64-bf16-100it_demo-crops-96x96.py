# The same linear classifier, data and budget on the frozen features of random weights.
_base_ = './nepa_d192l6-p8_linear_1xb64-bf16-100it_demo-crops-96x96.py'
model = dict(backbone=dict(init_cfg=None))
