"""Probes of many layers and poolings of a model: features once, kept on disk, then a probe of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.utils import track_iter_progress
from torch import nn

from ..version import __version__
from .data import check_linear_probe, check_same_classes, probe_loader
from .errors import ProbeError
from .feature_cache import FeatureCache, hash_samples, hash_weights
from .features import Item, backbone_of, check_layers, extract_features, probing
from .pooling import check_poolings
from .probe import FeatureSet, probe_item
from .probe_report import ProbeReport


@dataclass(frozen=True)
class ProbeSettings:
    """What is probed, and how.

    Args:
        layers (Sequence[int | str] | str): See :func:`nepa_mm.evaluation.check_layers`.
        poolings (Sequence[str]): See :func:`nepa_mm.evaluation.pool_tokens`.
        ks (Sequence[int]): Neighbours of k-NN classifiers; none for no k-NN.
        linear (bool): Fit linear probes.
        causal (bool, optional): Attention; None for the model's own.
        amp (bool): bfloat16 autocast.
        dtype (str): Of the kept features, 'float32' or 'float16'.
        batch_size (int): Images in a batch.
        num_workers (int): Processes that load images.
        seed (int): Of the images that are held out to choose the weight decay.
    """

    layers: Sequence[int | str] | str = 'all'
    poolings: Sequence[str] = ('avg', 'last')
    ks: Sequence[int] = (10, 20, 100)
    linear: bool = True
    causal: bool | None = None
    amp: bool = False
    dtype: str = 'float32'
    batch_size: int = 64
    num_workers: int = 4
    seed: int = 0


def probe_layers(
    model: nn.Module, facts: Mapping[str, Any], train: Any, val: Any, settings: ProbeSettings, cache: str | Path | None
) -> ProbeReport:
    """Probe layers and poolings of a model.

    Args:
        model (nn.Module): With a NEPAViT as ``backbone`` and a ``data_preprocessor``, on the device to compute on.
        facts (Mapping[str, Any]): What the features depend on and the weights do not show, for the cache's key.
        train (Dataset): Labelled images that the probes learn from; a data set of mmengine's form.
        val (Dataset): Those they are scored on.
        settings (ProbeSettings): How.
        cache (str | Path, optional): Folder in which features are kept; None for in memory.

    Returns:
        ProbeReport: A result per layer and pooling.

    Raises:
        ProbeError: The settings do not fit the model or the data.
        OSError: The features do not fit the disk.
    """
    backbone = backbone_of(model)
    causal = backbone.causal if settings.causal is None else settings.causal
    poolings = check_poolings(settings.poolings, causal)
    items: list[Item] = [
        (layer, pooling) for layer in check_layers(settings.layers, backbone.num_layers) for pooling in poolings
    ]
    check_same_classes(train, val)
    if settings.linear:
        check_linear_probe(train)
    ks = [k for k in settings.ks if k <= len(train)]
    if len(ks) < len(settings.ks):
        print(f'k-NN with k = {sorted(set(settings.ks) - set(ks))} left out: there are {len(train)} training images.')
    if not ks and not settings.linear:
        raise ProbeError(f'no k of {list(settings.ks)} is left for {len(train)} training images.')
    print(
        f'Probing {len(items)} layers x poolings with {"causal" if causal else "bidirectional"} attention: '
        f'{len(train)} training images, {len(val)} validation images.'
    )
    facts = dict(facts, weights=hash_weights(backbone), causal=causal)
    learn_from = _features(model, facts, 'train', train, items, settings, cache)
    score_on = _features(model, facts, 'val', val, items, settings, cache)

    highest = int(max(learn_from.labels.max(), score_on.labels.max()))
    num_classes = max(highest + 1, len(train.metainfo.get('classes') or ()))
    device = backbone.cls_token.device
    results = [
        probe_item(learn_from, score_on, item, num_classes, ks, settings.linear, seed=settings.seed, device=device)
        for item in track_iter_progress(items)
    ]
    about = dict(
        attention='causal' if causal else 'bidirectional',
        num_train=len(train),
        num_val=len(val),
        num_classes=num_classes,
        amp=settings.amp,
        dtype=settings.dtype,
        nepa_mm=__version__,
    )
    return ProbeReport(results, 100 * float(np.bincount(score_on.labels).max()) / len(val), about)


def _features(
    model: nn.Module,
    facts: Mapping[str, Any],
    name: str,
    dataset: Any,
    items: Sequence[Item],
    settings: ProbeSettings,
    root: str | Path | None,
) -> FeatureSet:
    """Features of a data set, from the cache as far as they are there."""
    backbone = backbone_of(model)
    preprocessor: nn.Module = model.data_preprocessor  # type: ignore[assignment]
    shape = (len(dataset), backbone.embed_dims)

    def extract(arrays: Mapping[Item, np.ndarray]) -> np.ndarray:
        loader = probe_loader(dataset, settings.batch_size, settings.num_workers)
        with probing(backbone, settings.causal):
            batches = track_iter_progress((loader, len(loader)))
            return extract_features(backbone, preprocessor, batches, list(arrays), arrays, settings.amp)

    if root is None:
        arrays: dict[Item, np.ndarray] = {item: np.empty(shape, settings.dtype) for item in items}
        return FeatureSet(arrays, extract(arrays))
    cache = FeatureCache(root, name, dict(facts, samples=hash_samples(dataset), amp=settings.amp, dtype=settings.dtype))
    missing = cache.missing(items)
    print(f'{name}: {len(items) - len(missing)} of {len(items)} kept in {cache.folder}, {len(missing)} to compute.')
    if missing:
        with cache.writing(missing, shape, settings.dtype) as arrays:
            labels = extract(arrays)
        cache.write_labels(labels)
    return FeatureSet({item: cache.read(item) for item in items}, cache.read_labels())
