"""Photograph-like images and their JPEGs: smooth shapes, edges and fine grain, as a camera has them."""

import io
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image


@lru_cache(maxsize=8)
def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An RGB image whose power falls with the frequency as in photographs, with some sharp edges over it.

    Args:
        height: Rows.
        width: Columns.
        seed: Which image.

    Returns:
        uint8 (height, width, 3), read-only.
    """
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falling = np.maximum(np.hypot(fy, fx), 1 / max(height, width)) ** -1.25
    noise = np.fft.rfft2(rng.standard_normal((3, height, width)))
    grey, *colours = np.fft.irfft2(noise * falling, (height, width))
    image = np.stack([grey, grey, grey], -1) + 0.3 * np.stack([*colours, -colours[0]], -1)
    image = 120 + 45 * (image - image.mean()) / image.std()
    for _ in range(6):
        corners = rng.uniform(0, (width, height), (4, 2)).astype(np.int32)
        shade = np.zeros((height, width), np.uint8)
        cv2.fillPoly(shade, [corners], 1)
        image += shade[..., None] * rng.uniform(-60, 60, 3)
    image = np.clip(image, 0, 255).astype(np.uint8)
    image.flags.writeable = False
    return image


def encoded(rgb: np.ndarray, kind: str = 'JPEG', mode: str = 'RGB', **settings) -> bytes:
    """An image as a file has it.

    Args:
        rgb: uint8 (H, W, 3).
        kind: Format, as Pillow calls it.
        mode: Mode, as Pillow calls it.
        **settings: Of Pillow's ``save``.

    Returns:
        The file.
    """
    file = io.BytesIO()
    Image.fromarray(rgb).convert(mode).save(file, kind, **settings)
    return file.getvalue()
