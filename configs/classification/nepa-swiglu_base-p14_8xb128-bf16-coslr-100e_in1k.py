# Fine-tuning of NEPA-B on ImageNet-1k, the paper's recipe and its best attention, bidirectional (83.8 in the paper):
# last token, patch embedding frozen, layer decay from .35 to 1.
_base_ = [
    '../_base_/models/nepa-swiglu_base-p14_cls.py',
    '../_base_/datasets/imagenet_224_finetune_paper.py',
    '../_base_/schedules/adamw_finetune_paper.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    backbone=dict(
        drop_path_rate=0.1,
        freeze_patch_embed=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/nepa-swiglu_base-p14_8xb256-accum2-bf16-coslr-1600e_in1k/epoch_1600.pth',
        ),
    ),
    # The paper gives mixup .8 and CutMix 1.0; that they alternate at every batch is the release's.
    train_cfg=dict(augments=dict(type='TimmMixup', mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5)),
)
