"""The parts of a config that predicting and probing need, as a run would find them."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config, ConfigDict


def model_config(cfg: Config) -> ConfigDict:
    """A copy of the config's model as the runner builds it: with ``data_preprocessor`` of the config where it has none.

    mmpretrain's own configs keep it beside the model; a model without it would see images that are not normalised.

    Args:
        cfg (Config): The config.

    Returns:
        ConfigDict: What to build.
    """
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    return model


def innermost_dataset(loader: Any, holding: str | None = None) -> Any:
    """The data set's config of a data loader, below what wraps it: RepeatDataset, or ConcatDataset, whose first counts.

    Args:
        loader (dict, optional): Config of a data loader.
        holding (str, optional): Stop at the first that has this key. Defaults to None: go to the bottom.

    Returns:
        dict or None: The config; None where there is no loader, or none of its data sets has the key.
    """
    dataset = (loader or {}).get('dataset')
    while dataset is not None and (holding is None or dataset.get(holding) is None):
        inner = dataset.get('dataset') or next(iter(dataset.get('datasets') or ()), None)
        if inner is None:
            return dataset if holding is None else None
        dataset = inner
    return dataset
