"""Reading label maps, and refusing in words what is none or belongs to another image."""

import io
from collections.abc import Mapping
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from .errors import LabelError
from .png_chunks import png_fault


def read_label_map(data: bytes, source: str) -> np.ndarray:
    """Read an encoded label map; of a palette image, the indices.

    Args:
        data: The file: a lossless image with one channel and values up to 255.
        source: Its path, for messages.

    Returns:
        uint8 (H, W).

    Raises:
        LabelError: It cannot be read, has colours, or higher values than 8 bits hold.
    """
    fault = png_fault(data)
    if fault is not None:
        raise LabelError(f'label map {source!r} ({len(data):,} bytes) cannot be read: {fault}')
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode, label = f'mode {image.mode}', np.array(image)
    except Exception as error:  # OSError, and whatever else the decoders of single formats raise
        raise LabelError(f'label map {source!r} ({len(data):,} bytes) cannot be read: {error}') from error
    return as_label_map(label, source, mode)


def as_label_map(label: np.ndarray, source: str, kind: str) -> np.ndarray:
    """Refuse a decoded image that holds no class numbers.

    Args:
        label: It.
        source: Its path.
        kind: What kind of image it is, for messages.

    Returns:
        uint8 (H, W).

    Raises:
        LabelError: It has colours, or values that 8 bits do not hold.
    """
    if label.ndim != 2:
        raise LabelError(
            f'label map {source!r} ({kind}) is a picture of colours, expected the numbers of the classes in one channel'
        )
    if label.dtype.kind == 'f' or label.min() < 0 or label.max() > 255:
        raise LabelError(
            f'label map {source!r} ({kind}) has values {label.min()} to {label.max()}, expected whole ones, 0 to 255'
        )
    return label.astype(np.uint8, copy=False)


def check_size(label: np.ndarray, source: str, image_shape: tuple[int, int], image: str) -> None:
    """Refuse a label map of another size than its image.

    Args:
        label: (H, W).
        source: Its path.
        image_shape: Height and width of the image as it was read, upright.
        image: Its path.

    Raises:
        LabelError: The sizes differ.
    """
    if label.shape == tuple(image_shape):
        return
    (height, width), (image_height, image_width) = label.shape, image_shape
    turned = ' (turned by its EXIF tag? then save it upright)' if label.shape[::-1] == tuple(image_shape) else ''
    raise LabelError(
        f'label map {source!r} is {width} x {height}, but its image {image!r} is {image_width} x {image_height}{turned}'
    )


def to_classes(label: np.ndarray, reduce_zero_label: bool, label_map: Mapping[int, int] | None = None) -> np.ndarray:
    """Turn stored values into classes as mmseg's ``LoadAnnotations`` does, in one pass.

    Args:
        label: uint8 (H, W).
        reduce_zero_label: 0 becomes 255 and k becomes k - 1.
        label_map: After that, the data set's own classes to those in use; other values stay. Defaults to None.

    Returns:
        uint8 (H, W); the same array where nothing changes.
    """
    if not reduce_zero_label and not label_map:
        return label
    return cv2.LUT(label, _table(reduce_zero_label, tuple((label_map or {}).items())))


@lru_cache(maxsize=8)
def _table(reduce_zero_label: bool, label_map: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Stored value to class, uint8 (256,)."""
    table = np.arange(256)
    if reduce_zero_label:
        table = np.where((table == 0) | (table == 255), 255, table - 1)
    changes = dict(label_map)
    return np.array([changes.get(value, value) for value in table.tolist()], np.uint8)
