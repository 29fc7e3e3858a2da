"""Features of any layers and poolings, in one pass over the images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.backbones import NEPAViT
from .errors import ProbeError
from .pooling import check_poolings, pool_tokens

# The patch embeddings themselves, before any layer: what the layers have to beat.
EMBED = 'embed'
Layer = int | str
Item = tuple[Layer, str]


def check_layers(layers: Layer | Sequence[Layer], num_layers: int) -> tuple[Layer, ...]:
    """Names of layers, in the order of depth.

    Args:
        layers (int | str | Sequence[int | str]): 'all', or one or several of 'embed' (the patch embeddings) and indices
            as in ``NEPAViT``'s ``out_indices``; negative ones count from the end.
        num_layers (int): Depth of the backbone.

    Returns:
        tuple[int | str, ...]: 'embed' first, then indices from 0, each once.

    Raises:
        ProbeError: A name is unknown, an index is out of range, or nothing is named.
    """
    if isinstance(layers, str) and layers == 'all':
        return (EMBED, *range(num_layers))
    given = [layers] if isinstance(layers, (str, int)) else list(layers)
    for layer in given:
        count = isinstance(layer, int) and not isinstance(layer, bool)
        if layer != EMBED and not (count and -num_layers <= int(layer) < num_layers):
            raise ProbeError(
                f"layer {layer!r} is neither 'embed' nor one of 0..{num_layers - 1}, or -{num_layers}..-1 from the end."
            )
    if not given:
        raise ProbeError("layers is empty; name at least one, or 'all'.")
    indices = sorted({int(layer) % num_layers for layer in given if layer != EMBED})
    return (*([EMBED] if EMBED in given else []), *indices)


def layer_name(layer: Layer) -> str:
    """How a layer is called in logs and files: 'embed', 'layer_06'."""
    return layer if isinstance(layer, str) else f'layer_{layer:02d}'


def backbone_of(model: nn.Module) -> NEPAViT:
    """The backbone that is probed.

    Args:
        model (nn.Module): A model of mmpretrain or mmseg, not wrapped.

    Returns:
        NEPAViT: ``model.backbone``.

    Raises:
        ProbeError: It is no ``NEPAViT``.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, NEPAViT):
        raise ProbeError(
            f'{type(model).__name__}.backbone is {type(backbone).__name__}; every layer of a NEPAViT can be probed, '
            'and of no other backbone.'
        )
    return backbone


@contextmanager
def probing(backbone: NEPAViT, causal: bool | None = None) -> Iterator[None]:
    """Put a backbone into eval mode (no RoPE rescale, no drop path), and leave it as it was.

    Args:
        backbone (NEPAViT): The backbone.
        causal (bool, optional): Attention to probe with. Defaults to None: as it is.
    """
    attention = backbone.causal
    with evaluating(backbone):
        backbone.causal = attention if causal is None else causal
        try:
            yield
        finally:
            backbone.causal = attention


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and leave the mode of each of its modules as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def layer_tokens(
    backbone: NEPAViT, images: Tensor, layers: Sequence[Layer]
) -> tuple[dict[Layer, Tensor], tuple[int, int]]:
    """Tokens of layers, in one pass.

    Args:
        backbone (NEPAViT): The backbone.
        images (Tensor): (B, C, H, W), normalised.
        layers (Sequence[int | str]): From :func:`check_layers`.

    Returns:
        tuple[dict, tuple[int, int]]: By layer (B, 1 + T, D), BOS first; and the grid of the T patches.
    """
    embeddings, grid = backbone.embed(images)
    indices = [int(layer) for layer in layers if layer != EMBED]
    hidden = backbone.encode(embeddings, grid, indices) if indices else []
    return dict(zip(layers, hidden if layers[0] != EMBED else [embeddings, *hidden], strict=True)), grid


@torch.no_grad()
def extract_features(
    backbone: NEPAViT,
    data_preprocessor: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    items: Sequence[Item],
    out: Mapping[Item, np.ndarray],
    amp: bool = False,
) -> np.ndarray:
    """Pool the asked-for layers of every image, each of which passes through the backbone once.

    Args:
        backbone (NEPAViT): In the mode to probe it in; see :func:`probing`.
        data_preprocessor (nn.Module): The model's: moves to its device and normalises.
        batches (Iterable): Of dicts with ``inputs`` and ``data_samples``, stacked by mmengine's ``default_collate``.
        items (Sequence[tuple]): Pairs (layer, pooling) to compute.
        out (Mapping[tuple, np.ndarray]): Where to write them: an array (N, D) per item, in memory or mapped to a file.
        amp (bool): bfloat16 autocast. Defaults to False.

    Returns:
        np.ndarray: The labels (N,), int64.

    Raises:
        ProbeError: An image has no label or several, there are more or fewer than N, or a feature does not fit the
            arrays' dtype.
    """
    layers = check_layers([layer for layer, _ in items], backbone.num_layers)
    check_poolings([pooling for _, pooling in items], backbone.causal)
    total = len(next(iter(out.values())))
    labels: list[int] = []
    for batch in batches:
        start = len(labels)
        labels += _labels_of(batch.get('data_samples'))
        if len(labels) > total:
            break
        images = data_preprocessor(dict(batch), training=False)['inputs']
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            tokens, _ = layer_tokens(backbone, images, layers)
        for layer, pooling in items:
            array = out[layer, pooling]
            array[start : len(labels)] = _as(pool_tokens(tokens[layer], pooling), array.dtype, layer, pooling)
    if len(labels) != total:
        raise ProbeError(f'the data set gave {len(labels)} images or more, where {total} were announced.')
    return np.array(labels, dtype=np.int64)


def _labels_of(samples: Sequence[Any] | None) -> list[int]:
    labels = []
    for sample in samples or ():
        label = sample.get('gt_label')
        if label is None or label.numel() != 1:
            given = 'no label' if label is None else f'{label.numel()} labels'
            raise ProbeError(
                f'{sample.get("img_path", "an image")} has {given}; a probe needs exactly one class per image '
                '(class folders, or an annotation file with a class per line).'
            )
        labels.append(int(label))
    if not labels:
        raise ProbeError('the batches hold no data_samples; end the pipeline with PackInputs.')
    return labels


def _as(features: Tensor, dtype: np.dtype, layer: Layer, pooling: str) -> np.ndarray:
    values = features.cpu().numpy()
    if not np.isfinite(values).all():
        raise ProbeError(f'{layer_name(layer)}, {pooling}: NaN or infinite features; the weights have diverged.')
    limit = np.finfo(dtype).max
    if np.abs(values).max() > limit:
        raise ProbeError(
            f'{layer_name(layer)}, {pooling}: a feature of {np.abs(values).max():.3g} does not fit {dtype} '
            f'(at most {limit:.3g}); store float32.'
        )
    return values.astype(dtype, copy=False)
