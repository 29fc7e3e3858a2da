"""Decoding and checking of images and label maps, from bytes."""

import io
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

# Whatever Pillow raises over damaged files of the formats in use.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
# Strange values named in full.
_SHOWN = 10


class LabelTable:
    """Which values a label map may hold, and what becomes of them.

    Args:
        values: Stored value (0 to 255) to written value.
        expected: The stored values in words, for messages.
    """

    def __init__(self, values: Mapping[int, int], expected: str) -> None:
        self.expected = expected
        self.table = np.full(256, -1, np.int16)
        for value, target in values.items():
            self.table[value] = target

    @classmethod
    def unchanged(cls, values: range, *more: int, expected: str) -> 'LabelTable':
        """A table that keeps what it allows."""
        return cls({value: value for value in [*values, *more]}, expected)

    def __call__(self, label: np.ndarray) -> np.ndarray:
        """Translate a label map.

        Args:
            label: uint8 (H, W).

        Returns:
            uint8 (H, W).

        Raises:
            ValueError: If it holds a value that the table does not allow.
        """
        mapped = self.table[label]
        if mapped.min() < 0:
            strange = np.unique(label[mapped < 0]).tolist()
            more = f' and {len(strange) - _SHOWN} more' if len(strange) > _SHOWN else ''
            raise ValueError(f'label {", ".join(map(str, strange[:_SHOWN]))}{more}, expected {self.expected}')
        return mapped.astype(np.uint8)


def decode_label(data: bytes) -> np.ndarray:
    """Decode a label map; of a palette image, the indices.

    Args:
        data: An 8-bit single-channel PNG.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: If it is not that.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode, label = image.mode, np.array(image)
    except DECODE_ERRORS as error:
        raise ValueError(f'cannot be decoded: {error}') from error
    if mode not in ('L', 'P'):
        raise ValueError(
            f'mode {mode}, expected an 8-bit single-channel label map (colour-coded masks are not supported)'
        )
    return label


def decode_sbd(data: bytes) -> np.ndarray:
    """Decode a class mask of the Semantic Boundaries Dataset (Hariharan et al., 2011).

    Args:
        data: A MATLAB file with the struct ``GTcls`` and its field ``Segmentation``.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: If it is not that.
    """
    from scipy.io import loadmat

    try:
        label = np.asarray(loadmat(io.BytesIO(data))['GTcls'][0]['Segmentation'][0])
    except Exception as error:  # scipy's reader raises what its C code stumbles over
        raise ValueError(f'is no class mask of SBD (GTcls.Segmentation): {error!r}') from error
    if label.ndim != 2 or label.dtype.kind not in 'iu':
        raise ValueError(f'GTcls.Segmentation is {label.dtype} {label.shape}, expected integers (H, W)')
    if label.size and not 0 <= label.min() <= label.max() <= 255:
        raise ValueError(f'GTcls.Segmentation holds {label.min()} to {label.max()}, expected 0 to 255')
    return label.astype(np.uint8)


def encode_label(label: np.ndarray) -> bytes:
    """Encode a label map, uint8 (H, W), as an 8-bit single-channel PNG."""
    stream = io.BytesIO()
    Image.fromarray(label).save(stream, 'PNG')
    return stream.getvalue()


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height of an image, after decoding all of it.

    Raises:
        ValueError: If it cannot be decoded, a truncated file included.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.size
    except DECODE_ERRORS as error:
        raise ValueError(f'cannot be decoded: {error}') from error
