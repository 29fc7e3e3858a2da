"""How many images a config's run goes through, and in how many updates."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from nepa_mm.apis.config_parts import innermost_dataset

IMAGENET = 1_281_167
# Images of the training sets that the configs name, by the data set's type and by how its files are called.
_BY_TYPE = {
    'ADE20KDataset': 20_210,
    'CityscapesDataset': 2_975,
    'COCOStuffDataset': 118_287,
    'CamVidDataset': 367,
}
# The lists of a share of the labels have what tools/dataset_converters/imagenet_subset.py draws.
_BY_FILES = (
    ('CustomDataset', r'(^|/)imagenet(/train)?/?$', r'', IMAGENET),
    ('CustomDataset', r'(^|/)imagenet/?$', r'(^|/)train_10percent\.txt$', round(IMAGENET * 0.1)),
    ('CustomDataset', r'(^|/)imagenet/?$', r'(^|/)train_1percent\.txt$', round(IMAGENET * 0.01)),
    ('ImageNet', r'(^|/)imagenet/?$', r'', IMAGENET),
    ('HuggingFaceImageDataset', r'(^|/)imagenet_hf/?$', r'', IMAGENET),
    ('PascalVOCDataset', r'(^|/)VOC2012/?$', r'(^|/)train\.txt$', 1_464),
    ('PascalVOCDataset', r'(^|/)VOC2012/?$', r'(^|/)aug\.txt$', 9_118),
)


@dataclass(frozen=True)
class Run:
    """Length of a training run.

    Args:
        length (str): As the config gives it: '1600 epochs', '160000 iterations'.
        batch_per_gpu (int): Images of one GPU in one forward pass.
        accumulation (int): Forward passes of one update.
        global_batch (int): Images of one update, on all GPUs.
        base_batch (int | None): The batch that the config's lr belongs to.
        dataset_images (int | None): Images of the training set; None where nothing tells.
        dataset_source (str): What tells.
        images (int | None): Images that the run goes through in all; None where that needs ``dataset_images``.
        updates (int | None): Of the weights.
    """

    length: str
    batch_per_gpu: int
    accumulation: int
    global_batch: int
    base_batch: int | None
    dataset_images: int | None
    dataset_source: str
    images: int | None
    updates: int | None


def run_length(cfg: Config, gpus: int, images: int | None = None) -> Run:
    """Length of the run of a config.

    Args:
        cfg (Config): The config.
        gpus (int): Processes, each with the config's batch size.
        images (int, optional): Images of the training set. Defaults to None: those of the data sets that the configs
            name are known.

    Returns:
        Run: Its length.
    """
    loader = cfg.train_dataloader
    batch = loader.get('batch_size') or loader['batch_sampler']['batch_size']
    accumulation = cfg.optim_wrapper.get('accumulative_counts', 1)
    size = dataset_size(loader['dataset'])
    if images is not None:
        size, source = images, '--images'
    else:
        name = (innermost_dataset(loader) or {}).get('data_root') or loader['dataset'].get('type')
        source = f'published size of {name}' if size else f'unknown for {name}: pass --images'
    epochs, iterations = cfg.train_cfg.get('max_epochs'), cfg.train_cfg.get('max_iters')
    if iterations is None and size is not None:
        per_gpu = -(-size // gpus)  # the sampler fills up the last round
        iterations = epochs * (per_gpu // batch if loader.get('drop_last') else -(-per_gpu // batch))
    return Run(
        length=f'{epochs} epochs' if epochs else f'{iterations} iterations',
        batch_per_gpu=batch,
        accumulation=accumulation,
        global_batch=gpus * batch * accumulation,
        base_batch=(cfg.get('auto_scale_lr') or {}).get('base_batch_size'),
        dataset_images=size,
        dataset_source=source,
        images=None if iterations is None else iterations * batch * gpus,
        updates=None if iterations is None else -(-iterations // accumulation),
    )


def dataset_size(dataset: Mapping[str, Any]) -> int | None:
    """Images of a training set that the package's configs name.

    Args:
        dataset (Mapping[str, Any]): Its config; RepeatDataset and ConcatDataset are looked into.

    Returns:
        int | None: The published number; None for other data, also under a data set's type.
    """
    if dataset.get('datasets'):
        parts = [dataset_size(part) for part in dataset['datasets']]
        return None if None in parts else sum(part for part in parts if part is not None)
    if dataset.get('dataset'):
        size = dataset_size(dataset['dataset'])
        return None if size is None else size * dataset.get('times', 1)
    if dataset.get('indices') is not None:
        return None
    kind, root = dataset.get('type'), str(dataset.get('data_root') or '')
    for name, folder, file, number in _BY_FILES:
        lists = str(dataset.get('ann_file') or '')
        if kind == name and re.search(folder, root) and (re.search(file, lists) if file else not lists):
            return number
    return _BY_TYPE.get(str(kind))
