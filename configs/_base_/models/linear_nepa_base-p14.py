# BatchNorm and one linear classifier per pixel on the frozen NEPAViT-B/14, bidirectional: what its features hold, with
# nothing learnt on top. The four layers that UPerNet reads are concatenated, so the classifier chooses among depths.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='AsyncSegDataPreProcessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        pad_val=-1,  # black, as in upernet_nepa_base-p14.py
        seg_pad_val=255,
        size=(518, 518),
    ),
    backbone=dict(
        type='NEPAViT',
        arch='base',
        patch_size=14,
        qk_norm='plain',
        mlp='gelu',
        layer_scale_init=1e-5,
        rope=dict(base=100.0, rescale=2.0, shift=None, jitter=None),
        out_indices=(3, 5, 7, 11),
        out_type='featmap',
        frozen_stages=12,
    ),
    # Without parameters: it lays the patch grid over the image where that is not whole patches.
    neck=dict(type='PatchPyramid', in_channels=768, patch_size=14, strides=(14, 14, 14, 14), upsample='none'),
    decode_head=dict(
        type='LinearSegHead',
        in_channels=[768, 768, 768, 768],
        in_index=[0, 1, 2, 3],
        num_classes=150,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(518, 518), stride=(345, 345)),
)
