"""What a JPEG says of itself before its pixels: size, kind and which way is up."""

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
_END_OF_IMAGE, _START_OF_SCAN, _APP1 = 0xD9, 0xDA, 0xE1


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
    """

    height: int
    width: int
    components: int
    common: bool
    orientation: int = 1
    frame: int = 0

    @property
    def plain(self) -> bool:
        """Whether a fast decoder gives what every reader gives: grey or colour, 8 bits, stored upright."""
        return self.common and self.components in (1, 3) and self.orientation == 1


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the markers of a JPEG up to its frame.

    Args:
        data: The file.

    Returns:
        The header; None if this is no JPEG or one without a frame.
    """
    if data[:2] != START:
        return None
    orientation, at, end = 1, 2, len(data)
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
            return JpegHeader(height, width, data[at + 9], common, orientation, at)
        if marker == _APP1 and data[at + 4 : at + 10] == b'Exif\0\0':
            orientation = _orientation(data[at + 4 : at + 2 + length])
        at += 2 + length
    return None


def ends_as_jpeg(data: bytes) -> bool:
    """Whether the last bytes are a JPEG's end: one cut short has none, and decoders fill it up with grey in silence.

    Files with more behind their end, as some cameras write them, answer False: read those with a decoder that tells.
    """
    return data.endswith(END)


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
