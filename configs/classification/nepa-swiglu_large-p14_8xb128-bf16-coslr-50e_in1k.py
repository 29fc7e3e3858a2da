# Fine-tuning of NEPA-L on ImageNet-1k, the paper's recipe, bidirectional (85.3 in the paper): what differs from B.
_base_ = [
    '../_base_/models/nepa-swiglu_large-p14_cls.py',
    '../_base_/datasets/imagenet_224_finetune_paper.py',
    '../_base_/schedules/adamw_finetune_paper.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    backbone=dict(
        drop_path_rate=0.2,
        freeze_patch_embed=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa-swiglu_large-p14_8xb128-accum4-bf16-coslr-800e_in1k/epoch_800.pth',
        ),
    ),
    train_cfg=dict(augments=dict(type='TimmMixup', mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5)),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.60))
param_scheduler = [
    dict(
        type='LayerWiseCosineLR',
        warmup=5,
        end=50,
        rise='linear',
        layer_decay_end=1.0,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(max_epochs=50)
