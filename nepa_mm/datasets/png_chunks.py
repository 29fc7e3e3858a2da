"""What a PNG says of its own state: each part has a checksum, and the last one is an end mark."""

import zlib

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_END = b'IEND'
# Of the first letter of a chunk's name: set where pictures do without it.
_ANCILLARY = 0x20


def png_fault(data: bytes) -> str | None:
    """Find what is wrong with a PNG by its checksums, which Pillow leaves out for the pixels.

    A tail of zeros, or a wrong byte, often decompresses to something: only a checksum tells. Texts, times and profiles
    (ancillary chunks) are passed over: some programs write them wrong, and the picture is whole without them.

    Args:
        data: A file.

    Returns:
        What is wrong; None if it is whole, or no PNG.
    """
    if not data.startswith(_SIGNATURE):
        return None
    view, at = memoryview(data), len(_SIGNATURE)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(view[at : at + 4], 'big'), data[at + 4 : at + 8]
        end = at + 8 + length
        if not kind[0] & _ANCILLARY and zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], 'big'):
            return f'damaged: the checksum of {_name(kind)} does not match'
        if kind == _END:
            return None
        at = end + 4
    return 'cut short: its end mark is missing'


def _name(kind: bytes) -> str:
    return f'its part {kind.decode()}' if kind.isalpha() else 'what stands in the place of a part'
