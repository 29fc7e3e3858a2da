# NEPAViT-L/14 with a linear classifier on the mean of the patch tokens, bidirectional (the release's fine-tuning).
_base_ = './nepa_base-p14_cls.py'
model = dict(backbone=dict(arch='large'), head=dict(in_channels=1024))
