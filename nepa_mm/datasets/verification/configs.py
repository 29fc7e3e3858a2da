"""The data sets of a config, one by one, and what the config says about their labels."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from .samples import LabelRule, list_sample

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# What cannot be built for a data set that is not as its config says.
BUILD_ERRORS = (OSError, ValueError, RuntimeError, AssertionError, KeyError, TypeError, ImportError)


@dataclass
class Part:
    """One data set of a config, wrappers taken off.

    Args:
        key: Where it stands in the config, such as 'train_dataloader.dataset.datasets[0]'.
        dataset: It, without a pipeline; None if it could not be built.
        error: Why not.
        rule: Of its label maps; None if it has none.
        classes: Their names; numbers, as many as the model has, where the data set names none.
    """

    key: str
    dataset: Any = None
    error: str = ''
    rule: LabelRule | None = None
    classes: tuple[str, ...] = ()


@dataclass
class Heads:
    """What the model of a config expects of labels.

    Args:
        num_classes: Where it stands in the config to the number of classes.
        label_classes: The same places to how many different labels the head takes. One more than its classes for a
            binary head, whose single channel tells 1 from 0.
        ignore_index: Where it stands, or would stand, to the ignored value; segmentation only.
    """

    num_classes: dict[str, int] = field(default_factory=dict)
    label_classes: dict[str, int] = field(default_factory=dict)
    ignore_index: dict[str, int] = field(default_factory=dict)


def read_heads(cfg: Mapping) -> Heads:
    """Find the heads of a config's model.

    Args:
        cfg: The config.

    Returns:
        Their numbers of classes and ignored values.
    """
    heads = Heads()
    model = cfg.get('model') or {}
    for name in ('decode_head', 'auxiliary_head', 'head'):
        found = model.get(name) or ()
        several = isinstance(found, (list, tuple))
        for i, head in enumerate(found if several else [found]):
            key = f'model.{name}[{i}]' if several else f'model.{name}'
            if 'num_classes' in head:
                classes = heads.num_classes[f'{key}.num_classes'] = head['num_classes']
                heads.label_classes[f'{key}.num_classes'] = classes
                if name != 'head':
                    if _is_binary(head):
                        heads.label_classes[f'{key}.num_classes'] = max(classes, 2)
                    heads.ignore_index[f'{key}.ignore_index'] = head.get('ignore_index', 255)
    return heads


def _is_binary(head: Mapping) -> bool:
    """Whether a segmentation head has one channel, and a loss that makes something of it."""
    if (head.get('out_channels') or head['num_classes']) != 1:
        return False
    losses = head.get('loss_decode') or dict(type='CrossEntropyLoss')
    # A softmax over one channel is always 1.
    return not any(
        getattr(loss['type'], '__name__', loss['type']).endswith('CrossEntropyLoss') and not loss.get('use_sigmoid')
        for loss in (losses if isinstance(losses, (list, tuple)) else [losses])
    )


def read_parts(cfg: Mapping, loader: str) -> list[Part]:
    """Build the data sets of one of a config's loaders.

    Args:
        cfg: The config.
        loader: 'train_dataloader', 'val_dataloader' or 'test_dataloader'.

    Returns:
        Its data sets, wrappers such as ConcatDataset and RepeatDataset taken off.
    """
    config = (cfg.get(loader) or {}).get('dataset')
    if config is None:
        return []
    heads = read_heads(cfg)
    ignored = next(iter(heads.ignore_index.values()), 255)
    count = next(iter(heads.num_classes.values()), 0)
    parts = []
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        for key, leaf in _leafs(config, f'{loader}.dataset'):
            part = Part(key)
            try:
                dataset = registry.build({**leaf, 'pipeline': [], 'lazy_init': True})
                dataset.full_init()
                part.classes = tuple(dataset.metainfo.get('classes') or (f'class {i}' for i in range(count)))
                part.rule = _label_rule(dataset, leaf, len(part.classes), ignored)
                part.dataset = dataset
            except BUILD_ERRORS as error:
                # What numpy says where mmengine packs an empty list of samples.
                empty = 'need at least one array' in str(error)
                reason = str(error) or 'no reason given; does each folder and list that it names exist?'
                part.error = 'finds no samples' if empty else f'cannot be built: {type(error).__name__}: {reason}'
            parts.append(part)
    return parts


def folder_config(
    images: str,
    labels: str | None = None,
    num_classes: int = 0,
    reduce_zero_label: bool = False,
    ignore_index: int = 255,
    seg_map_suffix: str = '.png',
    img_suffix: str | None = None,
) -> Config:
    """A config for a folder of images, with or without one of label maps.

    Args:
        images: Folder of the images.
        labels: Folder of the label maps. Defaults to None.
        num_classes: Classes of these; for label maps only.
        reduce_zero_label: As mmseg's. Defaults to False.
        ignore_index: Ignored value. Defaults to 255.
        seg_map_suffix: How the names of label maps end. Defaults to '.png'.
        img_suffix: How those of the images end, where label maps exist. Defaults to None: the one kind that is there.

    Returns:
        A config with a ``train_dataloader``.
    """
    if labels is None:
        dataset = dict(type='CustomDataset', data_root=os.path.abspath(images), with_label=False)
        return Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=dataset)))
    dataset = dict(
        type='FolderSegDataset',
        data_prefix=dict(img_path=os.path.abspath(images), seg_map_path=os.path.abspath(labels)),
        metainfo=dict(classes=[f'class {i}' for i in range(num_classes)]),
        reduce_zero_label=reduce_zero_label,
        seg_map_suffix=seg_map_suffix,
        img_suffix=img_suffix,
    )
    head = dict(num_classes=num_classes, ignore_index=ignore_index)
    return Config(
        dict(default_scope='mmseg', train_dataloader=dict(dataset=dataset), model=dict(decode_head=head)),
    )


def _leafs(config: Mapping, key: str) -> Iterator[tuple[str, Mapping]]:
    if isinstance(config.get('dataset'), Mapping):
        yield from _leafs(config['dataset'], f'{key}.dataset')
    elif config.get('datasets'):
        for i, part in enumerate(config['datasets']):
            yield from _leafs(part, f'{key}.datasets[{i}]')
    else:
        yield key, config


def _label_rule(dataset: Any, leaf: Mapping, num_classes: int, ignored: int) -> LabelRule | None:
    if 'seg_map_path' not in list_sample(dataset, 0):
        return None
    backend = 'pillow'
    for step in leaf.get('pipeline') or ():
        if str(step.get('type', '')).endswith('LoadAnnotations'):
            backend = step.get('imdecode_backend', backend)
    return LabelRule(num_classes, dataset.reduce_zero_label, ignored, dataset.label_map, backend)
