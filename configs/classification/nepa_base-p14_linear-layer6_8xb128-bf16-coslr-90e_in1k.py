# The same on the sixth of twelve layers, where an audio replication of the method (arXiv 2608.19863) found its probes
# highest: the last layer lives in the space of the patch embedding.
_base_ = './nepa_base-p14_linear_8xb128-bf16-coslr-90e_in1k.py'
model = dict(backbone=dict(out_indices=5))
