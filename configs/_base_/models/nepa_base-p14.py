# NEPA-B: ViT-B/14, GELU, plain QK-norm (the release; method: arXiv 2512.16922).
model = dict(
    type='NEPA',
    data_preprocessor=dict(
        type='AsyncSelfSupDataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], bgr_to_rgb=True
    ),
    backbone=dict(
        type='NEPAViT',
        arch='base',
        patch_size=14,
        qk_norm='plain',
        mlp='gelu',
        layer_scale_init=1e-5,
        rope=dict(base=100.0, rescale=2.0, shift=None, jitter=None),
    ),
    head=dict(type='NEPAHead', loss=dict(type='NextEmbeddingLoss', shift=True, stop_gradient=True, distance='cosine')),
)
