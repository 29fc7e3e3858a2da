# The paper's recipe for B with the layer decay rising as in the release's code: from .35 to 1 along half a cosine, not
# a line, and one warm-up for all layers. The paper's number belongs to the line.
_base_ = './nepa-swiglu_base-p14_8xb128-bf16-coslr-100e_in1k.py'
param_scheduler = [
    dict(
        type='LayerWiseCosineLR',
        warmup=5,
        end=100,
        rise='cosine',
        layer_decay_end=1.0,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
