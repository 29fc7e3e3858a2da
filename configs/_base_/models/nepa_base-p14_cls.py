# NEPAViT-B/14 with a linear classifier on the mean of the patch tokens, bidirectional (the release's fine-tuning).
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='AsyncClsDataPreprocessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        to_rgb=True,
        num_classes=1000,
    ),
    backbone=dict(
        type='NEPAViT',
        arch='base',
        patch_size=14,
        # Also from the released base pretraining, which has plain QK-norm: the loader fills the weights with ones.
        qk_norm='affine',
        mlp='gelu',
        layer_scale_init=1e-5,
        rope=dict(base=100.0, rescale=2.0, shift=None, jitter=None),
        out_type='avg_featmap',
    ),
    head=dict(
        type='NEPAClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
