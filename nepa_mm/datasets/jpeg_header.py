"""What a JPEG says of itself: before its pixels size, kind and which way is up, behind them that this was all."""

import re
import warnings
from dataclasses import dataclass

from PIL import Image

START, END = b'\xff\xd8', b'\xff\xd9'
EXIF_ORIENTATION = 0x0112
# Start of frame: baseline, extended and progressive; all with Huffman codes, which every decoder reads.
_COMMON_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
# Markers without a length: restarts and one for temporary use.
_BARE = (0x01, *range(0xD0, 0xD8))
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN, _APP1, _APP14 = 0xD8, 0xD9, 0xDA, 0xE1, 0xEE
# A marker but for the bare ones. Among the codes of pixels a 0xFF has a zero behind it, or a restart.
_MARKER = re.compile(rb'\xff([^\x00\x01\xff\xd0-\xd7])', re.DOTALL)
# Frames that hardware decoders are made for: baseline and progressive.
_USUAL_FRAMES = (0xC0, 0xC2)
# From the marker of a frame to the names of its components, and from Adobe's to the kind of its colours: 0 for RGB.
_NAMES_AT, _ADOBE_COLOURS_AT = 10, 15


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """Header of a JPEG.

    Args:
        height: As stored, before any turn.
        width: As stored.
        components: 1 grey, 3 colour, 4 CMYK or YCCK.
        common: Whether it is baseline, extended or progressive with 8 bits, as nearly all are.
        orientation: By EXIF, 1 to 8; 1 is upright.
        frame: Where in the file the marker of the frame stands.
        usual: Whether it is baseline or progressive, and its colours, if any, are YCbCr and not RGB.
    """

    height: int
    width: int
    components: int
    common: bool
    orientation: int = 1
    frame: int = 0
    usual: bool = False

    @property
    def plain(self) -> bool:
        """Whether a fast decoder gives what every reader gives: grey or colour, 8 bits, stored upright."""
        return self.common and self.components in (1, 3) and self.orientation == 1

    @property
    def for_hardware(self) -> bool:
        """Whether a decoder that is not made from libjpeg gives the same, but for its rounding."""
        return self.plain and self.usual


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the markers of a JPEG up to its frame.

    Args:
        data: The file.

    Returns:
        The header; None if this is no JPEG or one without a frame.
    """
    if data[:2] != START:
        return None
    orientation, rgb, at, end = 1, False, 2, len(data)
    while at + 4 <= end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        if marker in (_END_OF_IMAGE, _START_OF_SCAN):
            return None
        length = int.from_bytes(data[at + 2 : at + 4], 'big')
        if marker in _COMMON_FRAMES or marker in _OTHER_FRAMES:
            if at + 10 > end:
                return None
            height, width = (int.from_bytes(data[i : i + 2], 'big') for i in (at + 5, at + 7))
            common = marker in _COMMON_FRAMES and data[at + 4] == 8
            names = data[at + _NAMES_AT : at + _NAMES_AT + 9 : 3]
            usual = marker in _USUAL_FRAMES and not rgb and names != b'RGB'
            return JpegHeader(height, width, data[at + 9], common, orientation, at, usual)
        # Some programs add an empty block and leave the camera's: the first that turns the image counts.
        if orientation == 1 and marker == _APP1 and data[at + 4 : at + 10] == b'Exif\0\0':
            orientation = _orientation(data[at + 4 : at + 2 + length])
        if marker == _APP14 and data[at + 4 : at + 9] == b'Adobe':
            rgb = data[at + _ADOBE_COLOURS_AT : at + _ADOBE_COLOURS_AT + 1] == b'\0'
        at += 2 + length
    return None


def whole_jpeg(data: bytes, header: JpegHeader) -> bytes | None:
    """Find the end mark of a JPEG, from marker to marker.

    Decoders do not tell that it is missing: they make up the rest of one cut short, and read a tail of zeros, which
    are codes of pixels, too. A second file behind the first half of one shows by its start.

    Args:
        data: The file.
        header: Its header.

    Returns:
        The file up to its end mark, without what some cameras write behind it; None if the mark is missing.
    """
    at, has_scan = header.frame, False
    while (marker := _MARKER.search(data, at)) is not None:
        kind, at = marker[1][0], marker.end()
        if kind == _END_OF_IMAGE:
            return data[:at] if has_scan else None
        if kind == _START_OF_IMAGE:
            return None
        has_scan |= kind == _START_OF_SCAN
        at += int.from_bytes(data[at : at + 2], 'big')
    return None


def _orientation(exif: bytes) -> int:
    """The turn that an EXIF block asks for; 1 where it cannot be read."""
    tags = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            tags.load(exif)
            turn = tags.get(EXIF_ORIENTATION, 1)
    except Exception:  # a damaged block, over which Pillow raises one thing or another, turns nothing
        return 1
    return turn if turn in range(1, 9) else 1
