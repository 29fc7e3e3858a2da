"""``classify``, ``segment`` and ``features``: what a model says about images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor

from nepa_mm.evaluation import POOLINGS, backbone_of, check_layers, check_poolings, pool_tokens, probing
from nepa_mm.evaluation.features import Layer, evaluating, layer_tokens

from .classes import num_classes_of, palette_of
from .images import ImageInput, as_list, name_of
from .model import config_of
from .preprocessing import Preprocessing, batches, pipeline_of
from .results import Classification, Score, Segmentation

# What features() returns beside what pools.
UNPOOLED = ('map', 'tokens')


def classify(
    model: BaseModel, images: Any, *, topk: int = 5, batch_size: int = 1, amp: bool = False
) -> Classification | list[Classification]:
    """Classify images.

    Args:
        model (BaseModel): A classifier, from :func:`nepa_mm.get_model`.
        images: A path, a PIL image or an array (H, W, 3) of uint8 in **BGR** (as OpenCV and mm read them; (H, W) is
            grey); a folder, whose images are taken at any depth; or a list of these.
        topk (int): Classes to name. Defaults to 5.
        batch_size (int): Images of one size to compute at once. Defaults to 1.
        amp (bool): bfloat16 autocast. Defaults to False.

    Returns:
        Classification or list[Classification]: One for an image; a list for a folder or a list.

    Raises:
        ImageError: An image cannot be read; the message names it.
        TypeError: The model is no classifier.
        ValueError: ``topk`` or ``batch_size`` is not a positive number.
    """
    items, many = as_list(images)
    results = [result for _, result in iter_classify(model, items, topk=topk, batch_size=batch_size, amp=amp)]
    return results if many else results[0]


def segment(
    model: BaseModel, images: Any, *, batch_size: int = 1, amp: bool = False
) -> Segmentation | list[Segmentation]:
    """Segment images.

    Args:
        model (BaseModel): A segmentor, from :func:`nepa_mm.get_model`.
        images: See :func:`classify`.
        batch_size (int): Images of one size to compute at once. Defaults to 1.
        amp (bool): bfloat16 autocast. Defaults to False.

    Returns:
        Segmentation or list[Segmentation]: One for an image; a list for a folder or a list. Label maps have the
        image's own size.

    Raises:
        ImageError: An image cannot be read; the message names it.
        TypeError: The model is no segmentor.
        ValueError: ``batch_size`` is not a positive number.
    """
    items, many = as_list(images)
    results = [result for _, result in iter_segment(model, items, batch_size=batch_size, amp=amp)]
    return results if many else results[0]


def features(
    model: BaseModel,
    images: Any,
    *,
    layers: Layer | Sequence[Layer] = -1,
    pooling: str = 'map',
    causal: bool | None = None,
    batch_size: int = 1,
    amp: bool = False,
) -> dict[Layer, Tensor] | list[dict[Layer, Tensor]]:
    """Features of any layers of the backbone, in one pass.

    The last layer of a pretrained NEPA lives in the space of the patch embeddings (method: the paper's linear probes);
    for features look at mid-depth first.

    Args:
        model (BaseModel): A model with a ``NEPAViT`` backbone: pretraining, classifier or segmentor.
        images: See :func:`classify`. They pass through the test pipeline of the model's config; a pretraining's has
            none (see :func:`nepa_mm.apis.preprocessing.pipeline_of`).
        layers (int, str or Sequence): 'all', or 'embed' (the patch embeddings) and layers from 0; negative ones count
            from the end. Defaults to -1.
        pooling (str): 'map' (D, H_grid, W_grid); 'tokens' (1 + T, D), BOS first; or a pooling to (D,): 'avg',
            'avg_norm', 'last' or 'bos' (see :func:`nepa_mm.evaluation.pool_tokens`). Defaults to 'map'.
        causal (bool, optional): Attention. Defaults to None: the model's own, which is causal for a pretraining.
        batch_size (int): Images of one size to compute at once. Defaults to 1.
        amp (bool): bfloat16 autocast. Defaults to False.

    Returns:
        dict[int or str, Tensor] or list of these: By layer, in the order of depth, a tensor in fp32 on the CPU; a list
        for a folder or a list.

    Raises:
        ImageError: An image cannot be read; the message names it.
        ValueError: The model has no ``NEPAViT``, a layer or the pooling does not exist, or ``batch_size`` is not a
            positive number.
    """
    backbone = backbone_of(model)
    names = check_layers(layers, backbone.num_layers)
    if pooling not in (*UNPOOLED, *POOLINGS):
        raise ValueError(f'pooling={pooling!r} is unknown; choose one of {[*UNPOOLED, *POOLINGS]}.')

    def step(batch: dict) -> list[dict[Layer, Tensor]]:
        tokens, grid = layer_tokens(backbone, model.data_preprocessor(batch, False)['inputs'], names)
        outs = [_form(x, grid, pooling).cpu() for x in tokens.values()]
        return [dict(zip(names, of_image, strict=True)) for of_image in zip(*outs, strict=True)]

    items, many = as_list(images)
    with probing(backbone, causal):
        if pooling in POOLINGS:
            check_poolings([pooling], backbone.causal)
        results = [result for _, result in _run(model, items, step, batch_size, amp)]
    return results if many else results[0]


def iter_classify(
    model: BaseModel,
    images: Iterable[ImageInput],
    *,
    topk: int = 5,
    batch_size: int = 1,
    amp: bool = False,
    on_error: Callable[[ImageInput, Exception], None] | None = None,
) -> Iterator[tuple[ImageInput, Classification]]:
    """:func:`classify`, one after the other, for more images than fit into memory.

    Args:
        model (BaseModel): A classifier.
        images (Iterable): Paths, PIL images or arrays.
        topk (int): Classes to name. Defaults to 5.
        batch_size (int): Images of one size to compute at once. Defaults to 1.
        amp (bool): bfloat16 autocast. Defaults to False.
        on_error (Callable, optional): Called with an image that cannot be read, and why; it is then left out. Defaults
            to None: raise.

    Yields:
        tuple: The image as given, and its classes.
    """
    num_classes = num_classes_of(model)
    if num_classes is None or hasattr(model, 'decode_head'):
        raise TypeError(f'classify needs a classifier with a head, but got {type(model).__name__}')
    if topk < 1:
        raise ValueError(f'topk={topk} is not a positive number')
    classes = (getattr(model, '_dataset_meta', None) or {}).get('classes')

    def step(batch: dict) -> list[np.ndarray]:
        return [sample.pred_score.float().cpu().numpy() for sample in model.test_step(batch)]

    for image, scores in _run(model, images, step, batch_size, amp, on_error):
        order = np.argsort(-scores, kind='stable')[:topk]
        top = tuple(Score(int(i), float(scores[i]), classes[i] if classes else None) for i in order)
        yield image, Classification(top=top, scores=scores, path=name_of(image))


def iter_segment(
    model: BaseModel,
    images: Iterable[ImageInput],
    *,
    batch_size: int = 1,
    amp: bool = False,
    on_error: Callable[[ImageInput, Exception], None] | None = None,
) -> Iterator[tuple[ImageInput, Segmentation]]:
    """:func:`segment`, one after the other, for more images than fit into memory.

    Args:
        model (BaseModel): A segmentor.
        images (Iterable): Paths, PIL images or arrays.
        batch_size (int): Images of one size to compute at once. Defaults to 1.
        amp (bool): bfloat16 autocast. Defaults to False.
        on_error (Callable, optional): See :func:`iter_classify`.

    Yields:
        tuple: The image as given, and its label map.
    """
    num_classes = num_classes_of(model)
    if num_classes is None or not hasattr(model, 'decode_head'):
        raise TypeError(f'segment needs a segmentor with a decode_head, but got {type(model).__name__}')
    meta = getattr(model, 'dataset_meta', None) or {}
    classes = tuple(meta.get('classes') or map(str, range(num_classes)))
    palette = meta.get('palette') or palette_of(num_classes)
    dtype = np.uint8 if num_classes <= 256 else np.uint16

    def step(batch: dict) -> list[np.ndarray]:
        return [sample.pred_sem_seg.data[0].cpu().numpy().astype(dtype) for sample in model.test_step(batch)]

    for image, label_map in _run(model, images, step, batch_size, amp, on_error):
        yield image, Segmentation(label_map=label_map, classes=classes, palette=palette, path=name_of(image))


def _run(
    model: BaseModel,
    images: Iterable[ImageInput],
    step: Callable[[dict], list],
    batch_size: int,
    amp: bool,
    on_error: Callable[[ImageInput, Exception], None] | None = None,
) -> Iterator[tuple[ImageInput, Any]]:
    """Preprocess images, batch neighbours of one size and compute; yields each image with its result."""
    cfg = config_of(model)
    scope = cfg.get('default_scope', 'mmengine')
    in_channels = getattr(getattr(model, 'backbone', None), 'in_channels', 3)
    preprocess = Preprocessing(pipeline_of(cfg), scope, in_channels)

    def prepared() -> Iterator[tuple[ImageInput, dict]]:
        for image in images:
            try:
                yield image, preprocess(image)
            except ValueError as error:  # an ImageError, or a transform that the image does not suit
                if on_error is None:
                    raise
                on_error(image, error)

    for batch in batches(prepared(), batch_size):
        data = dict(
            inputs=torch.stack([item['inputs'] for _, item in batch]),
            data_samples=[item['data_samples'] for _, item in batch],
        )
        device = next(model.parameters()).device.type
        with evaluating(model), torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=amp):
            outs = step(data)
        yield from zip([image for image, _ in batch], outs, strict=True)


def _form(tokens: Tensor, grid: tuple[int, int], pooling: str) -> Tensor:
    """Tokens (B, 1 + T, D) in the form that ``pooling`` names, in fp32."""
    if pooling == 'map':
        return tokens[:, 1:].float().transpose(1, 2).unflatten(2, grid)
    return tokens.float() if pooling == 'tokens' else pool_tokens(tokens, pooling)
