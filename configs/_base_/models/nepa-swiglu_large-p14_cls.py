# NEPAViT-L/14 with SwiGLU and a linear classifier on the last patch token (the paper's fine-tuning).
_base_ = './nepa-swiglu_base-p14_cls.py'
model = dict(backbone=dict(arch='large'), head=dict(in_channels=1024))
