"""Names and colours of a model's classes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from torch import nn

from .config_parts import innermost_dataset


def num_classes_of(model: nn.Module) -> int | None:
    """Number of classes that a classifier's or segmentor's head tells apart; None for a model without such a head."""
    for name in ('decode_head', 'head'):
        count = getattr(getattr(model, name, None), 'num_classes', None)
        if isinstance(count, int):
            return count
    return None


def find_dataset_meta(cfg: Config, checkpoint_meta: Mapping[str, Any], num_classes: int | None) -> dict[str, Any]:
    """Class names and palette of a model.

    They come from the checkpoint, which holds those of the data it was trained on, else from the config's data set.
    ImageNet-1k's are given in words: for its 1,000 folder names (``n01440764``, ...), and for a head of 1,000 classes
    without any names, such as that of the released weights.

    Args:
        cfg (Config): The model's config.
        checkpoint_meta (Mapping[str, Any]): ``meta`` of the checkpoint.
        num_classes (int, optional): See :func:`num_classes_of`.

    Returns:
        dict[str, Any]: ``classes`` (tuple of str) and, for segmentation, ``palette`` (a list of RGB per class) and
        ``reduce_zero_label``; empty where no names of that number are known.
    """
    if num_classes is None:
        return {}
    meta: dict[str, Any] = {}
    for source in (dict(checkpoint_meta.get('dataset_meta') or {}), _of_dataset(cfg)):
        classes = source.get('classes') or source.get('CLASSES')
        if isinstance(classes, str):  # a file of names, which may not be here
            continue
        if classes and len(classes) == num_classes:
            meta = source | dict(classes=tuple(map(str, classes)))
            break
        if classes:
            print_log(
                f'{len(classes)} class names are known ({", ".join(map(str, classes[:3]))}, ...), but the model has '
                f'{num_classes} classes: they are not used.',
                logger='current',
                level=logging.WARNING,
            )
    if cfg.get('default_scope') == 'mmseg':
        # The data set's own form, in which label maps are exported.
        meta['reduce_zero_label'] = bool(_of_dataset(cfg).get('reduce_zero_label', meta.get('reduce_zero_label')))
        if 'classes' in meta and len(meta.get('palette') or ()) != num_classes:
            meta['palette'] = palette_of(num_classes)
        return meta
    return _imagenet_in_words(meta, num_classes)


def palette_of(num_classes: int) -> list[list[int]]:
    """Colours for classes that have none: mmseg's own for such data sets, so that its pictures and ours agree."""
    return np.random.RandomState(42).randint(0, 255, size=(num_classes, 3)).tolist()


def _of_dataset(cfg: Config) -> dict[str, Any]:
    """Meta information of the config's test (else training) data set, which is not built: it may not be here."""
    for name in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        dataset = innermost_dataset(cfg.get(name))
        if dataset is None or dataset.get('type') is None:
            continue
        kind = dataset['type']
        if isinstance(kind, str):
            with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
                kind = registry.get(kind)
        meta = dict(getattr(kind, 'METAINFO', {})) | dict(dataset.get('metainfo') or {})
        if isinstance(dataset.get('classes'), (list, tuple)):
            meta.setdefault('classes', dataset['classes'])
        accepted = inspect.signature(kind).parameters if kind is not None else {}
        if 'reduce_zero_label' in accepted or 'reduce_zero_label' in dataset:
            default = accepted['reduce_zero_label'].default if 'reduce_zero_label' in accepted else False
            meta['reduce_zero_label'] = dataset.get('reduce_zero_label', default)
        return meta
    return {}


def _imagenet_in_words(meta: dict[str, Any], num_classes: int) -> dict[str, Any]:
    if num_classes != 1000:
        return meta
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
    from timm.data import ImageNetInfo

    if 'classes' not in meta:
        print_log('The 1,000 classes have no names in checkpoint and config: taken for ImageNet-1k.', logger='current')
    elif meta['classes'] != tuple(ImageNetInfo().label_names()):
        return meta
    return meta | dict(classes=tuple(IMAGENET_CATEGORIES))
