# The same with patch 16 at 512 x 512, 32 x 32 patches. Pretraining has patch 14: its patch embedding is resampled, by
# `resample_patch_embed=True` in init_cfg.
_base_ = './upernet_nepa_base-p14.py'
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(patch_size=16),
    neck=dict(patch_size=16),
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)),
)
