# ViT-H/14 as NEPA-L is made: GELU, QK-norm with a weight. A size of ours: neither paper nor release has it.
_base_ = './nepa_large-p14.py'
model = dict(backbone=dict(arch='huge'))
