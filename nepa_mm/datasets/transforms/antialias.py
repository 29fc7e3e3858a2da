"""Resizing as PIL does it, at four times its speed."""

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ..scratch import Scratch

INTERPOLATIONS = ('bilinear', 'bicubic')
_PIL = dict(bilinear=Image.Resampling.BILINEAR, bicubic=Image.Resampling.BICUBIC)
_scratch = Scratch()


def resize_box(
    image: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int], interpolation: str
) -> np.ndarray:
    """Cut a box out of an image and resize it, anti-aliased.

    Whole pixels are resized by torch, whose filters are PIL's, on integers too. The two round differently: by 0.02 of
    255 in the mean over crops of photographs, by 0.3 in the worst of them. Boxes between pixels are left to PIL itself.

    Args:
        image (np.ndarray): uint8 (H, W, 3).
        box (tuple[float, float, float, float]): Top, left, height and width, inside the image.
        size (tuple[int, int]): Height and width to come out.
        interpolation (str): One of ``INTERPOLATIONS``.

    Returns:
        np.ndarray: uint8 (*size, 3), contiguous.
    """
    top, left, height, width = box
    if not all(float(edge).is_integer() for edge in box):
        edges = (left, top, left + width, top + height)
        return np.asarray(Image.fromarray(image).resize(size[::-1], _PIL[interpolation], edges))
    crop = image[int(top) : int(top + height), int(left) : int(left + width)]
    pixels = _scratch.array((1, *crop.shape))
    pixels[0] = crop
    # The strides of channels_last in all four dimensions: otherwise torch converts to it and back.
    resized = interpolate(torch.from_numpy(pixels).permute(0, 3, 1, 2), size, mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()
