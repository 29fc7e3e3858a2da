"""DecodeDataPreprocessor: JPEG files become a normalised batch on the model's device."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor

from .async_selfsup import AsyncSelfSupDataPreprocessor


@MODELS.register_module()
class DecodeDataPreprocessor(AsyncSelfSupDataPreprocessor):
    """``AsyncSelfSupDataPreprocessor`` that first decodes what the data workers have left encoded.

    torchvision decodes the JPEG files of a batch on the model's device: on a GPU by nvJPEG, on the CPU by libjpeg.
    Boxes and flips are those that ``DrawRandomResizedCrop`` drew in the worker. A batch of pixels, as evaluation has
    them, is treated as in ``AsyncSelfSupDataPreprocessor``. Arguments are those of that class. Unverified on a GPU.

    Raises:
        RuntimeError: torchvision decodes no list of JPEG files, or has been built without nvJPEG and there is a GPU.
    """

    # Where images are noted that turn out to be damaged; BadDataHook sets it, and without it they are errors.
    bad_images: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_decoder()
        self._told = False

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Make a batch for the model.

        Args:
            data (dict[str, Any]): ``inputs``, a :class:`nepa_mm.datasets.encoded_batch.EncodedBatch` or uint8
                (B, 3, H, W), BGR, and ``data_samples``.
            training (bool): Not used. Defaults to False.

        Returns:
            dict[str, Any]: ``inputs``, float (B, 3, H, W), normalised, on the device; ``data_samples``.

        Raises:
            UnreadableImage: A file is damaged, and no ``BadDataHook`` has it noted and replaced; names it.
        """
        if hasattr(data['inputs'], 'decode'):
            data = {**data, 'inputs': self._decoded(data['inputs'])}
        return super().forward(data, training)

    def _decoded(self, batch: Any) -> Tensor:
        """The batch as uint8 (B, 3, H, W), BGR."""
        if self.device.type != 'cuda':
            return batch.decode(self._decode_files, self.device, self.bad_images)
        device = self.device if self.device.index is not None else torch.device('cuda', torch.cuda.current_device())
        # torchvision writes from a stream of its own, which waits for nothing, into memory of the current stream: that
        # of the training may still be in use. That of this one is not, and the training goes on meanwhile.
        own, training = _stream(device), torch.cuda.current_stream(device)
        own.synchronize()
        with torch.cuda.stream(own):
            images: Tensor = batch.decode(self._decode_files, device, self.bad_images)
        training.wait_stream(own)
        images.record_stream(training)
        return images

    def _decode_files(self, files: list[Tensor]) -> list[Tensor | None]:
        device = self.device if self.device.type == 'cuda' else torch.device('cpu')
        images = decode_jpegs(files, device)
        failed = sum(image is None for image in images)
        if failed and not self._told:
            self._told = True
            print_log(
                f'{failed} of {len(files)} JPEG files of a batch cannot be decoded on {device}: what is damaged is '
                'noted or an error, the others are read on the CPU, which takes longer. Said once.',
                logger='current',
                level=logging.WARNING,
            )
        return images


def decode_jpegs(files: list[Tensor], device: torch.device) -> list[Tensor | None]:
    """Decode JPEG files by torchvision.

    Args:
        files (list[Tensor]): uint8 (length,), on the CPU.
        device (torch.device): 'cpu', or a GPU.

    Returns:
        list[Tensor | None]: Images, uint8 (3, H, W), RGB, on the device; None for what cannot be decoded.
    """
    try:
        return _decode(files, device)
    except torch.cuda.OutOfMemoryError:  # no fault of the files
        raise
    except RuntimeError:  # does not say which
        if len(files) == 1:
            return [None]
        half = len(files) // 2
        return [*decode_jpegs(files[:half], device), *decode_jpegs(files[half:], device)]


def check_decoder() -> None:
    """See that torchvision decodes lists of JPEG files, on the GPU too if there is one.

    Raises:
        RuntimeError: It does not; says what to do.
    """
    file = torch.from_numpy(cv2.imencode('.jpg', np.full((64, 64, 3), 100, np.uint8))[1].ravel())
    for device in ('cpu', 'cuda') if torch.cuda.is_available() else ('cpu',):
        try:
            images = _decode([file, file], torch.device(device))
            shapes = [tuple(image.shape) for image in images]  # type: ignore[union-attr]
            reason = '' if shapes == [(3, 64, 64)] * 2 else f'it gives {shapes}'
        except Exception as error:  # whatever a torchvision of another age stumbles over
            reason = str(error).split('\n')[0] or type(error).__name__
        if reason:
            raise RuntimeError(
                f'DecodeDataPreprocessor: torchvision {torchvision.__version__} does not decode a list of JPEG files '
                f'on {device!r}: {reason}. Install a torchvision whose io.decode_jpeg takes lists, for a GPU one built '
                'with nvJPEG, or decode in the data workers: AsyncSelfSupDataPreprocessor, DecodeRandomResizedCrop and '
                'default_collate (docs/augmentation.md)'
            )


def _decode(files: list[Tensor], device: torch.device) -> list[Tensor | None]:
    return list(torchvision.io.decode_jpeg(files, mode=torchvision.io.ImageReadMode.RGB, device=device))


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream on which a device decodes; no part of the model, which is copied."""
    return torch.cuda.Stream(device)
