"""Reading images of every kind into one form, and refusing in words what is none.

What a file becomes, all as Pillow's ``convert('RGB')`` has it, which the release reads with, but for the last three:

- grey, palette and bilevel images become colour; CMYK and YCCK JPEG too, in Adobe's inverted form;
- alpha is dropped, and so is a palette's transparent colour: what is stored below it shows;
- of an animation or a file of several images, the first is taken;
- images are turned upright as their EXIF says; XMP, which few programs look at, turns nothing;
- 16-bit samples are cut to their high byte, which is within 1 of ``value / 257`` (Pillow does so with colour, but takes
  255 of every grey value from 256 on);
- a JPEG or PNG that is cut short or was not written to its end, also where a decoder would make up the rest, is
  unreadable; of other formats, what their decoder minds.
"""

import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from .errors import UnreadableImage
from .jpeg_header import END, JpegHeader, read_jpeg_header, whole_jpeg
from .png_chunks import png_fault

try:
    import simplejpeg
except ImportError:  # slower without, and lacking data is found in fewer files
    simplejpeg = None

# Pillow's own limit for what may be an attack: 0.5 GB as 8-bit RGB.
MAX_PIXELS = 2 * 89_478_485
# How they begin, what is taken for images now and then.
_NO_IMAGES = (
    (b'version https://git-lfs', "a Git LFS pointer in an image's place: run git lfs pull"),
    (b'<!doctype html', 'a web page, not an image'),
    (b'<html', 'a web page, not an image'),
    (b'<?xml', 'XML, not an image'),
    (b'<svg', 'SVG, which has no pixels'),
)
_CUT_SHORT = 'cut short: its end mark is missing'
LACKS_DATA, DAMAGED = 'a part of its data is missing', 'a part of its data is damaged'
_TOO_LARGE = 'more pixels than max_pixels of its loader allows'
# What simplejpeg calls the colours of so many components; those of CMYK become others by Pillow's rule.
_COLORS = {1: 'BGR', 3: 'BGR', 4: 'CMYK'}
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# Any data of a JPEG but a mark.
_FILLER = b'\x5a\x3c\xd2\x81' * 64
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


def read_image(data: bytes, source: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an encoded image of any kind.

    Args:
        data: The file.
        source: Its path, or another name, for messages.
        max_pixels: Larger images are refused before they are decoded, for their memory. Defaults to 178,956,970; a
            higher number also raises Pillow's own limit in this process.

    Returns:
        uint8 (H, W, 3), BGR, upright.

    Raises:
        UnreadableImage: It is empty, no image, cut short, damaged, too large, or has samples of 32 bits.
    """
    header = read_jpeg_header(data)
    if header is not None:
        return _read_jpeg(data, header, source, max_pixels)
    fault = png_fault(data)
    if fault is not None:
        raise UnreadableImage(source, fault)
    return _read_with_pillow(data, source, max_pixels)


def pil_to_bgr(image: Image.Image) -> np.ndarray:
    """Pixels of a PIL image, as :func:`read_image` reads them from its file.

    Args:
        image: Of any mode; it is loaded if it was not, and left as it is otherwise. (A TIFF that was loaded before, and
            that XMP turns, is turned already.)

    Returns:
        uint8 (H, W, 3), BGR, upright.

    Raises:
        OSError: Its file is damaged.
        ValueError: Its samples have 32 bits.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # as for files
        xmp = _forget_xmp(image)  # TIFF is turned while it is loaded
        try:
            image.load()
        finally:
            image.info.update(xmp)
        return _to_upright_bgr(image.copy(), image.format)


def jpeg_fault(error: ValueError) -> str | None:
    """Tell damage from what does not matter in that at which simplejpeg stops.

    Libjpeg goes on where it meets a mark too early, too late or not at all, and warns; of several things the first is
    told. What is left over before the end mark may be padding, as some cameras write it.

    Args:
        error: What ``simplejpeg.decode_jpeg`` raised for a whole image.

    Returns:
        What is wrong with the pixels; None if that is not known.
    """
    text = str(error).lower()
    if 'premature end' in text:
        return LACKS_DATA
    left_over = 'extraneous bytes before marker' in text and not text.endswith('0xd9')
    return DAMAGED if left_over or 'bad huffman code' in text or 'instead of rst' in text else None


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image as its EXIF orientation asks.

    Args:
        image: (H, W) or (H, W, C), as stored.
        orientation: 1 to 8.

    Returns:
        The image, contiguous; H and W change places for 5 to 8.
    """
    return np.ascontiguousarray(_TURNS[orientation](image)) if orientation in _TURNS else image


def _read_jpeg(data: bytes, header: JpegHeader, source: str, max_pixels: int) -> np.ndarray:
    """Read a JPEG, by the quickest decoder that gives Pillow's pixels, if it lacks nothing."""
    _check_size(header.width, header.height, source, max_pixels)
    whole = whole_jpeg(data, header)
    if whole is None:
        raise UnreadableImage(source, _CUT_SHORT)
    if not header.common or header.components not in _COLORS:
        return _read_with_pillow(whole, source, max_pixels, header.orientation)
    image = _decode_strictly(whole, _COLORS[header.components], source)
    if header.components == 4:
        is_whole, image = image is not None, _read_with_pillow(whole, source, max_pixels, 1)
        if not is_whole and not np.array_equal(image, _read_with_pillow(_with_more(whole), source, max_pixels, 1)):
            raise UnreadableImage(source, LACKS_DATA)
    elif image is None:
        image = _decode_with_opencv(whole)
        if image is None:
            return _read_with_pillow(whole, source, max_pixels, header.orientation)
        if _is_made_up(image, whole):
            raise UnreadableImage(source, LACKS_DATA)
    return turn_upright(image, header.orientation)


def _read_with_pillow(data: bytes, source: str, max_pixels: int, orientation: int | None = None) -> np.ndarray:
    """Read what is no common JPEG; Pillow knows most formats, and refuses what is cut short.

    Without an orientation, the file's EXIF is asked for it.
    """
    if not data:
        raise UnreadableImage(source, 'empty, 0 bytes')
    if max_pixels > 2 * (Image.MAX_IMAGE_PIXELS or max_pixels):
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)
    try:
        with warnings.catch_warnings():
            # Of sizes below our limit, of palettes' transparent colours, and of EXIF that does not matter.
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                _check_size(width, height, source, max_pixels)
                _forget_xmp(image)  # TIFF is turned while it is loaded
                image.load()
                kind = image.format
                if orientation is not None:
                    return turn_upright(_to_bgr(image, kind), orientation)
                return _to_upright_bgr(image, kind)
    except (UnreadableImage, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # before there is an image whose size could be looked at
        raise UnreadableImage(source, f'{_TOO_LARGE}: {error}') from error
    except Exception as error:  # OSError, and whatever else the decoders of single formats raise
        raise UnreadableImage(source, _reason(data, error)) from error


def _forget_xmp(image: Image.Image) -> dict[str, Any]:
    """Take out where Pillow looks for an orientation that EXIF does not have."""
    return {key: image.info.pop(key) for key in ('xmp', 'XML:com.adobe.xmp') if key in image.info}


def _to_upright_bgr(image: Image.Image, kind: str | None) -> np.ndarray:
    """Pixels of a loaded image, which is turned in place."""
    _forget_xmp(image)  # PNG may have it behind the pixels
    # A damaged tag turns nothing.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return _to_bgr(image, kind)


def _to_bgr(image: Image.Image, kind: str | None) -> np.ndarray:
    """Pixels of a loaded image."""
    # Pillow gives 16-bit grey of PNM, and in its older versions of PNG, as 32-bit integers.
    if image.mode.startswith('I;16') or (image.mode == 'I' and kind in ('PNG', 'PPM')):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ('I', 'F'):
        raise ValueError(
            f'{kind or "an image"} with samples of mode {image.mode}, whose range is not known: save it with 8 or 16 '
            'bits'
        )
    return cv2.cvtColor(np.asarray(image.convert('RGB')), cv2.COLOR_RGB2BGR)


def _decode_strictly(data: bytes, colors: str, source: str) -> np.ndarray | None:
    """Decode a JPEG with which nothing is wrong; None of others, and without simplejpeg."""
    if simplejpeg is None:
        return None
    try:
        return simplejpeg.decode_jpeg(data, colors)
    except ValueError as error:
        fault = jpeg_fault(error)
        if fault is not None:
            raise UnreadableImage(source, fault) from error
        return None


def _decode_with_opencv(data: bytes) -> np.ndarray | None:
    """Decode a grey or colour JPEG; None if OpenCV does not, for one because it has a limit of its own for pixels."""
    with suppress(cv2.error):
        return cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    return None


def _is_made_up(image: np.ndarray, data: bytes) -> bool:
    """Whether a JPEG whose end mark is there has too little before it, and was filled up with grey.

    libjpeg does not tell. Where data is missing, more of it changes the picture.
    """
    if (image[-1, -1] != 128).any():
        return False
    filled = _decode_with_opencv(_with_more(data))
    return filled is None or not np.array_equal(image, filled)


def _with_more(data: bytes) -> bytes:
    """A JPEG with more data before its end mark, and its padding: one that is whole decodes to the same picture."""
    return data[: -len(END)].rstrip(b'\xff') + _FILLER + END


def _check_size(width: int, height: int, source: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableImage(source, f'{_TOO_LARGE}: {width} x {height}, limit {max_pixels:,}')


def _reason(data: bytes, error: Exception) -> str:
    """Why bytes are no image, in words; Pillow's where nothing is known."""
    start = data[:256].lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    for magic, reason in _NO_IMAGES:
        if start.startswith(magic):
            return reason
    if not data.strip(b'\0'):
        return f'{len(data):,} bytes, all zero'
    if isinstance(error, Image.UnidentifiedImageError):
        return f'{len(data):,} bytes of no known image format'
    return str(error) or type(error).__name__
