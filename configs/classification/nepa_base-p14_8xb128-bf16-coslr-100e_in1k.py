# Fine-tuning of NEPA-B on ImageNet-1k, the release's recipe: bidirectional, mean pooling, patch embedding frozen, layer
# decay .65 with a layer-wise warm-up. Tests on the shorter side at 256, centre crop 224.
_base_ = [
    '../_base_/models/nepa_base-p14_cls.py',
    '../_base_/datasets/imagenet_224_finetune_release.py',
    '../_base_/schedules/adamw_finetune_release.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    backbone=dict(
        drop_path_rate=0.1,
        freeze_patch_embed=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
    # In every batch one of the two, by a coin.
    train_cfg=dict(augments=dict(type='TimmMixup', mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5)),
)
