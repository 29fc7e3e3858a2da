"""Made images of every kind: what must be read, and what must be refused."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A smooth picture of `size` (height, width), RGB, whose last pixel is not the grey that decoders fill up with."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    smooth[-16:, -16:] = (200, 40, 90)
    return smooth


def encode(image: Image.Image | np.ndarray, kind: str = 'JPEG', **options) -> bytes:
    """An image as a file."""
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def as_release(data: bytes) -> np.ndarray:
    """RGB as the release reads it, upright."""
    from PIL import ImageOps

    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def bomb(side: int = 60_000) -> bytes:
    """A PNG of a few bytes that says it has `side` x `side` pixels."""
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')


def _jpeg(seed: int) -> bytes:
    return encode(picture(seed), quality=90)


def _png(seed: int) -> bytes:
    return encode(picture(seed), 'PNG')


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


# Suffix, and the file of a seed.
DAMAGE: dict[str, tuple[str, Callable[[int], bytes]]] = {
    'empty': ('.jpg', lambda seed: b''),
    'cut short': ('.jpg', lambda seed: _half(_jpeg(seed))),
    'cut short, with an end': ('.jpg', lambda seed: _half(_jpeg(seed)) + b'\xff\xd9'),
    'middle missing': ('.jpg', lambda seed: _jpeg(seed)[:750] + _jpeg(seed)[-300:]),
    'rest never written': ('.jpg', lambda seed: _half(_jpeg(seed)) + bytes(len(_jpeg(seed)) // 2)),
    'rest never written, high quality': (
        '.jpg',
        lambda seed: _half(encode(picture(seed), quality=95)) + bytes(2**16),
    ),
    'second file in the middle': ('.jpg', lambda seed: _half(_jpeg(seed)) + _jpeg(seed)),
    'progressive cut short': ('.jpg', lambda seed: _half(encode(picture(seed), progressive=True))),
    'cmyk cut short, with an end': (
        '.jpg',
        lambda seed: _half(encode(Image.fromarray(picture(seed)).convert('CMYK'))) + b'\xff\xd9',
    ),
    'grey cut short': ('.jpg', lambda seed: _half(encode(picture(seed)[..., 0]))),
    'header only': ('.jpg', lambda seed: _jpeg(seed)[:200]),
    'zeros': ('.jpg', lambda seed: bytes(500 + seed)),
    'noise': ('.png', lambda seed: b'\0' + np.random.default_rng(seed).bytes(500)),
    'web page': ('.jpg', lambda seed: b'\n<!DOCTYPE html>\n<html><body>404</body></html>'),
    'pointer': ('.jpg', lambda seed: b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'),
    'png cut short': ('.png', lambda seed: _half(_png(seed))),
    'png with a wrong byte': ('.png', lambda seed: _flipped(_png(seed))),
    'png never written to its end': ('.png', lambda seed: _zeroed(_png(seed))),
    'png without its end': ('.png', lambda seed: _png(seed)[:-12]),
    'bmp cut short': ('.bmp', lambda seed: _half(encode(picture(seed), 'BMP'))),
    'tiff cut short': ('.tif', lambda seed: _half(encode(picture(seed), 'TIFF', compression='tiff_lzw'))),
    'tiff of floats': ('.tif', lambda seed: encode(picture(seed)[..., 0].astype(np.float32), 'TIFF')),
    'bomb': ('.png', lambda seed: bomb()),
    'huge': ('.jpg', lambda seed: _resized(_jpeg(seed))),
}


def _zeroed(data: bytes) -> bytes:
    """The last twentieth of it, which PNG's decoder may fill with pixels of its own."""
    kept = len(data) * 19 // 20
    return data[:kept] + bytes(len(data) - kept)


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


def _resized(data: bytes) -> bytes:
    frame = data.index(b'\xff\xc0')
    return data[: frame + 5] + b'\xff\xff\xff\xff' + data[frame + 9 :]


def _png_with_wrong_text(seed: int) -> bytes:
    """Behind the pixels, where Pillow lets it pass."""
    wrong = chunk(b'tEXt', b'Comment\0by a program that writes no checksums')[:-4] + bytes(4)
    return _png(seed)[:-12] + wrong + chunk(b'IEND', b'')


def _turned(seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 1 + seed % 8
    return encode(picture(seed), exif=exif.tobytes())


# Unusual, and to be read all the same.
UNUSUAL: dict[str, tuple[str, Callable[[int], bytes]]] = {
    'plain': ('.jpg', _jpeg),
    'progressive': ('.jpg', lambda seed: encode(picture(seed), progressive=True)),
    'grey': ('.jpg', lambda seed: encode(picture(seed)[..., 0])),
    'cmyk': ('.jpg', lambda seed: encode(Image.fromarray(picture(seed)).convert('CMYK'))),
    'turned': ('.jpg', _turned),
    'bytes behind the end': ('.jpg', lambda seed: _jpeg(seed) + bytes(100)),
    'png': ('.png', _png),
    'png with alpha': ('.png', lambda seed: encode(np.dstack([picture(seed), picture(seed + 1)[..., 0]]), 'PNG')),
    'png with a wrong text': ('.png', lambda seed: _png_with_wrong_text(seed)),
    'bytes behind the png': ('.png', lambda seed: _png(seed) + bytes(100)),
    'palette': ('.png', lambda seed: encode(Image.fromarray(picture(seed)).quantize(16), 'PNG', transparency=3)),
    'bilevel': ('.png', lambda seed: encode(Image.fromarray(picture(seed)).convert('1'), 'PNG')),
    'grey with alpha': ('.png', lambda seed: encode(Image.fromarray(picture(seed)).convert('LA'), 'PNG')),
    '16-bit grey': ('.png', lambda seed: encode(picture(seed)[..., 0].astype(np.uint16) * 257, 'PNG')),
    '16-bit colour': ('.png', lambda seed: cv2.imencode('.png', picture(seed).astype(np.uint16) * 257)[1].tobytes()),
    '16-bit tiff': ('.tif', lambda seed: encode(picture(seed)[..., 0].astype(np.uint16) * 257, 'TIFF')),
    'tiff': ('.tif', lambda seed: encode(picture(seed), 'TIFF', compression='tiff_lzw')),
    'bmp': ('.bmp', lambda seed: encode(picture(seed), 'BMP')),
}


def files(kinds: dict[str, tuple[str, Callable[[int], bytes]]], count: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of `count` files, the kinds in turn."""
    names = list(kinds)
    for i in range(count):
        suffix, make = kinds[names[i % len(names)]]
        yield f'{names[i % len(names)].replace(" ", "_").replace(",", "")}_{i}{suffix}', make(i)
