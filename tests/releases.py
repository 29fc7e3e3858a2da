"""Release directories with random weights, of the (shrunk) configs that the docs hand them to."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from nepa_mm.checkpoints import to_release
from nepa_mm.checkpoints.release_files import Release, write_release
from nepa_mm.models.backbones.release_config import release_config_of

PREPROCESSOR = dict(do_resize=True, size=dict(height=224, width=224), resample=2, image_mean=[0.5] * 3)


def make_release(folder: Path, config: Path, ema: bool = False) -> None:
    """Write what the authors' repository of a config would hold, from random weights.

    Args:
        folder (Path): The directory to make.
        config (Path): A pretraining config, or one of a classifier with NEPAClsHead.
        ema (bool): With EMA weights.
    """
    model = Config.fromfile(config).model.to_dict()
    backbone = model['backbone'] | dict(init_cfg=None)
    weights = dict(MODELS.build(backbone).state_dict())
    classes = None
    if 'num_classes' in model['head']:
        classes, width = model['head']['num_classes'], model['head']['in_channels']
        weights |= {'head.fc_norm.weight': torch.ones(width), 'head.fc_norm.bias': torch.zeros(width)}
        weights |= {'head.fc.weight': torch.zeros(classes, width), 'head.fc.bias': torch.zeros(classes)}
    settings = release_config_of(backbone, 224, backbone.get('causal', False), classes)
    release = to_release(weights)
    folder.mkdir(parents=True)
    write_release(
        folder, Release(settings, release, {k: v * 1.5 for k, v in release.items()} if ema else None, PREPROCESSOR)
    )


def make_releases(folder: Path) -> None:
    """Fill ``folder``/released with repositories of the authors', for the configs in ``folder``/configs."""
    for repository, config, ema in (
        ('nepa-base-patch14-224', 'pretrain/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k.py', True),
        ('nepa-base-patch14-224-sft', 'classification/nepa_base-p14_8xb128-bf16-coslr-100e_in1k.py', False),
        ('nepa-large-patch14-224-sft', 'classification/nepa_large-p14_8xb128-bf16-coslr-100e_in1k.py', False),
    ):
        make_release(folder / 'released' / repository, folder / 'configs' / config, ema)
