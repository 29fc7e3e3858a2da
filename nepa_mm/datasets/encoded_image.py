"""EncodedImage: an image that is decoded only as far as a crop of it needs."""

import cv2
import numpy as np

from .errors import UnreadableImage
from .jpeg_header import JpegHeader, read_jpeg_header, whole_jpeg
from .reading import MAX_PIXELS, jpeg_fault, read_image
from .scratch import Scratch

try:
    import simplejpeg
except ImportError:  # slower without, and the same pixels
    simplejpeg = None

# What a JPEG decoder can leave out while it decodes: 1 of 2, 4 or 8 pixels in each direction.
REDUCTIONS = (1, 2, 4, 8)
_REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
_REDUCED[8] = cv2.IMREAD_REDUCED_COLOR_8
# From the marker of a frame to its height, and to the sampling of its first component.
_HEIGHT_AT, _SAMPLING_AT = 5, 11
_scratch = Scratch()


class EncodedImage:
    """An image in memory as its file holds it, whose size is known and whose pixels are not, yet.

    Of a plain JPEG (8 bits, grey or colour, upright) only the header is read here; :meth:`rows` then decodes it from
    the top to the last row that is asked for, at a fraction of its size if that is enough. Half of the time of decoding
    goes into the codes of the pixels, which follow each other without an index: so rows below a crop cost nothing, and
    those above it most of what they cost in a full decoding. Every other image is read at once by
    :func:`nepa_mm.datasets.reading.read_image`.

    Args:
        data (bytes): The file.
        source (str): Its path, or another name, for messages.
        max_pixels (int): See ``read_image``.

    Raises:
        UnreadableImage: See ``read_image``. A JPEG without an end mark is found here, one that lacks data in
            :meth:`rows`, if the decoder comes to where it ends; what it lacks further below is not found.
    """

    def __init__(self, data: bytes, source: str, max_pixels: int = MAX_PIXELS) -> None:
        self.source, self.max_pixels = source, max_pixels
        self._header, self._image = _fast_header(data, max_pixels), None
        whole = None if self._header is None else whole_jpeg(data, self._header)
        self._data = data if whole is None else whole
        if self._header is None or whole is None:
            self._image = read_image(data, source, max_pixels)
            self.height, self.width = self._image.shape[:2]
        else:
            self.height, self.width = self._header.height, self._header.width

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, upright."""
        return self.height, self.width

    @property
    def file_for_hardware(self) -> bytes | None:
        """The file, if it is a JPEG whose end is there and that every decoder reads alike; None of other images."""
        return self._data if self._header is not None and self._header.for_hardware else None

    def rows(self, bottom: int, reduction: int = 1) -> tuple[np.ndarray, int]:
        """Decode the image from its first row on.

        Args:
            bottom (int): The first row, counted in the whole image, that is not needed.
            reduction (int): The image may come smaller by this factor, one of ``REDUCTIONS``. Defaults to 1.

        Returns:
            tuple[np.ndarray, int]: uint8 (at least bottom / r, width / r, 3), rounded up, BGR, and the factor r:
            ``reduction``, or 1 where the image was decoded already or its kind cannot be reduced. The next image that
            this thread decodes may be written over it.

        Raises:
            UnreadableImage: The data of the rows is damaged or missing.
        """
        if self._image is None and self._header is not None:
            image = self._decode(self._header, bottom, reduction)
            if image is not None:
                return image, reduction
        if self._image is None:  # read it as a whole, or say what is wrong with it
            self._image = read_image(self._data, self.source, self.max_pixels)
        return self._image, 1

    def _decode(self, header: JpegHeader, bottom: int, reduction: int) -> np.ndarray | None:
        """What :meth:`rows` gives; None if a decoder stumbles over the data."""
        if simplejpeg is None:
            if reduction == 1:
                return None  # `read_image` decodes it by OpenCV, and once for all
            flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
            return cv2.imdecode(np.frombuffer(self._data, np.uint8), flags)
        height = min(header.height, _whole_blocks(self._data, header, bottom))
        shape = (-(-height // reduction), -(-header.width // reduction), 3)
        pixels = _scratch.array(shape)
        settings = dict(min_height=shape[0], min_width=shape[1], min_factor=reduction, buffer=pixels)
        data = self._data if height == header.height else _with_height(self._data, header, height)
        try:
            simplejpeg.decode_jpeg(data, 'BGR', **settings)
        except ValueError as error:
            # The first thing libjpeg minds is named: that there is more data than rows is meant so.
            if height < header.height and 'extraneous bytes before marker' in str(error):
                return pixels
            fault = jpeg_fault(error)
            if fault is not None:
                raise UnreadableImage(self.source, fault) from error
            return None
        return pixels


def _fast_header(data: bytes, max_pixels: int) -> JpegHeader | None:
    """Header of a JPEG of which parts can be decoded; None of anything else."""
    header = read_jpeg_header(data)
    if header is None or not header.plain:
        return None
    return header if 0 < header.height * header.width <= max_pixels else None


def _whole_blocks(data: bytes, header: JpegHeader, bottom: int) -> int:
    """Rows in whole blocks of the codes, so many that the colours of row ``bottom - 1`` do not see the end."""
    block = 8 * max(data[header.frame + _SAMPLING_AT + 3 * i] & 15 for i in range(header.components))
    return -(-(bottom + 2) // block) * block


def _with_height(data: bytes, header: JpegHeader, height: int) -> bytearray:
    """The file with another height in its header: decoders stop there."""
    shorter = bytearray(data)
    at = header.frame + _HEIGHT_AT
    shorter[at : at + 2] = height.to_bytes(2, 'big')
    return shorter
