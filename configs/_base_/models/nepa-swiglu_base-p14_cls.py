# NEPAViT-B/14 with SwiGLU and a linear classifier on the last patch token (the paper's fine-tuning).
_base_ = './nepa_base-p14_cls.py'
model = dict(backbone=dict(mlp='swiglu', out_type='last_token'), head=dict(norm=False))
