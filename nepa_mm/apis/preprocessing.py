"""From images to what a model takes: the test pipeline of its config, and batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope

from nepa_mm.datasets import LoadImageFromFile, UnreadableImage

from .config_parts import innermost_dataset
from .images import ImageError, ImageInput, to_bgr

# Aerial images are larger than what training takes for an attack; OpenCV's own limit.
LARGEST = 2**30
# What the crops of mmpretrain, mmcv and torchvision call the size that they give.
SIZES = ('scale', 'crop_size', 'size')


class Preprocessing:
    """Images into what a model takes, by the test pipeline of its config.

    Files are read by the pipeline's own ``LoadImageFromFile``; for what is in memory already, that step is left out.
    Labels, which one image does not have, are not loaded.

    Args:
        pipeline (Sequence[Mapping]): Configs of the transforms.
        scope (str): The registry scope to build them from: 'mmpretrain' or 'mmseg'.
        in_channels (int): Channels of an image. Defaults to 3.
    """

    def __init__(self, pipeline: Sequence[Mapping], scope: str, in_channels: int = 3) -> None:
        steps = [dict(step) for step in pipeline]
        loaders = [step for step in steps if _name(step['type']) == 'LoadImageFromFile']
        self.in_channels = in_channels
        with DefaultScope.overwrite_default_scope(scope):
            self.load: Callable[[dict], dict | None] = TRANSFORMS.build(
                loaders[0] if loaders else dict(type='LoadImageFromFile')
            )
            # Labels go too: what is loaded is the image, which is here already, or what an image alone does not have.
            rest = [TRANSFORMS.build(step) for step in steps if not _name(step['type']).startswith('Load')]
        self.transform = Compose(rest)
        if isinstance(self.load, LoadImageFromFile):
            self.load.max_pixels = LARGEST

    def __call__(self, image: ImageInput) -> dict:
        """Read and transform an image.

        Args:
            image: A path, a PIL image, or an array (H, W, 3) of uint8 in BGR, or (H, W) in grey.

        Returns:
            dict: ``inputs`` (C, H, W) and ``data_samples``, as the data set of a test run yields them.

        Raises:
            ImageError: It cannot be read, or is no such array.
        """
        if isinstance(image, (str, os.PathLike)):
            results = self._read(image)
        else:
            array = to_bgr(image)
            results = dict(img=array, img_shape=array.shape[:2], ori_shape=array.shape[:2])
        if results['img'].ndim != 3 or results['img'].shape[2] != self.in_channels:
            raise ImageError(
                f'an image has {self.in_channels} channels here, but got an array of shape {results["img"].shape}'
            )
        return self.transform(results)

    def _read(self, path: str | os.PathLike) -> dict:
        path = os.fspath(path)
        if not os.path.isfile(path):
            raise ImageError(f'image {path!r} does not exist')
        try:
            results = self.load(dict(img_path=path))
        except UnreadableImage as error:
            raise ImageError(str(error)) from error
        except Exception as error:  # whatever the decoder stumbles over
            raise ImageError(f'image {path!r} cannot be read: {error}') from error
        if results is None or results.get('img') is None:
            raise ImageError(f'image {path!r} cannot be read')
        return results


def pipeline_of(cfg: Config) -> list[dict]:
    """The transforms that a model's images pass through before they are tested.

    Args:
        cfg (Config): Its config.

    Returns:
        list[dict]: Those of its test, else validation, data set. A pretraining has neither: its images are resized and
        cropped in the middle to the size of its random crops, in ImageNet's usual ratio of 256 to 224.

    Raises:
        ValueError: There is none, and no random crop to a square to tell the size.
    """
    pipeline = evaluation_pipeline(cfg, ('test_dataloader', 'val_dataloader'))
    if pipeline is not None:
        return pipeline
    crop = training_crop(cfg)
    if crop is None:
        raise ValueError(
            'the config has no test pipeline, and no random crop in its training pipeline to a square that tells the '
            "size of an image; add test_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), ...]))"
        )
    return centre_crop_pipeline(*crop)


def evaluation_pipeline(cfg: Config, loaders: Sequence[str]) -> list[dict] | None:
    """The pipeline of the first of these data loaders that the config has; None where it has none of them."""
    for name in loaders:
        dataset = innermost_dataset(cfg.get(name), holding='pipeline')
        if dataset is not None:
            return list(dataset['pipeline'])
    return None


def training_crop(cfg: Config) -> tuple[int, str] | None:
    """Side and interpolation of the square crops that a config trains on; None where there are none."""
    dataset = innermost_dataset(cfg.get('train_dataloader'), holding='pipeline')
    for step in dataset['pipeline'] if dataset is not None else ():
        for key in SIZES if 'Crop' in _name(step['type']) else ():
            size = step.get(key)
            size = size[0] if isinstance(size, (list, tuple)) and len(set(size)) == 1 else size
            if isinstance(size, int):
                return size, step.get('interpolation', 'bilinear')
    return None


def centre_crop_pipeline(size: int, interpolation: str) -> list[dict]:
    """The evaluation of ImageNet at any size: the shorter side to 8/7 of it, and the centre cropped."""
    return [
        dict(type='LoadImageFromFile'),
        dict(
            type='ResizeEdge',
            scale=round(size * 256 / 224),
            edge='short',
            backend='pillow',
            interpolation=interpolation,
        ),
        dict(type='CenterCrop', crop_size=size),
        dict(type='PackInputs'),
    ]


def batches(items: Iterator[tuple[Any, dict]], batch_size: int) -> Iterator[list[tuple[Any, dict]]]:
    """Group neighbours of one size, which can be stacked, into batches.

    Args:
        items (Iterator[tuple[Any, dict]]): Anything, with what :class:`Preprocessing` made of it.
        batch_size (int): Most in a batch.

    Yields:
        list[tuple[Any, dict]]: A batch, in the order given.

    Raises:
        ValueError: ``batch_size`` is no positive number.
    """
    if batch_size < 1:
        raise ValueError(f'batch_size={batch_size} is not a positive number')
    batch: list[tuple[Any, dict]] = []
    for item in items:
        if batch and (len(batch) == batch_size or batch[0][1]['inputs'].shape != item[1]['inputs'].shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _name(kind: Any) -> str:
    """Name of a transform that a config gives by name, with its registry's scope or without, or as a class."""
    return str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1]
