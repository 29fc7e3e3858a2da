"""EncodedImage: rows of a JPEG are those of its full decoding, and what is damaged is found."""

import cv2
import numpy as np
import pytest

from nepa_mm.benchmark.photos import encoded, photo
from nepa_mm.datasets import UnreadableImage, encoded_image, read_image, reading
from nepa_mm.datasets.encoded_image import EncodedImage

PHOTO = photo(203, 270)
KINDS = {
    '4:2:0': dict(),
    '4:2:2': dict(subsampling=1),
    '4:4:4': dict(subsampling=0),
    'grey': dict(mode='L'),
    'progressive': dict(progressive=True),
    'restarts': dict(restart_marker_rows=2),
    'many tables': dict(optimize=True),
}


@pytest.fixture(params=['simplejpeg', 'OpenCV'])
def decoder(request, monkeypatch) -> str:
    """Both decoders, the first one where it is installed."""
    if request.param == 'OpenCV':
        for module in (encoded_image, reading):
            monkeypatch.setattr(module, 'simplejpeg', None)
    elif encoded_image.simplejpeg is None:
        pytest.skip('simplejpeg is not installed')
    return request.param


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('reduction', [1, 2, 4, 8])
def test_rows_are_those_of_the_full_image(decoder, kind, reduction):
    data = encoded(PHOTO, **KINDS[kind])
    flags = dict(zip((1, 2, 4, 8), (1, cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_COLOR_4, 65), strict=True))
    full = cv2.imdecode(np.frombuffer(data, np.uint8), flags[reduction])
    image = EncodedImage(data, 'a.jpg')
    assert image.shape == (203, 270)
    for bottom in (1, 15, 16, 17, 100, 202, 203):
        rows, factor = image.rows(bottom, reduction)
        assert factor == (reduction if decoder == 'simplejpeg' or reduction > 1 else 1)
        needed = -(-bottom // reduction)
        assert rows.shape[0] >= needed and rows.shape[1:] == full.shape[1:]
        whole = bottom // reduction  # the last reduced row may be of rows that were not asked for
        np.testing.assert_array_equal(rows[:whole], full[:whole])
        assert decoder != 'simplejpeg' or rows.shape[0] <= -(-min(203, bottom + 2 + 16) // reduction)


@pytest.mark.parametrize('data', [encoded(PHOTO, 'PNG'), encoded(PHOTO, mode='CMYK'), encoded(PHOTO, exif=b'')])
def test_other_files_are_read_as_everywhere(decoder, data):
    image = EncodedImage(data, 'a')
    rows, factor = image.rows(20, 2 if data[:2] != b'\xff\xd8' else 1)
    assert factor == 1
    np.testing.assert_array_equal(rows[:20], read_image(data, 'a')[:20])


def test_what_is_turned_by_exif_is_upright(decoder):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    data = encoded(PHOTO, exif=exif)
    image = EncodedImage(data, 'a.jpg')
    assert image.shape == (270, 203)
    np.testing.assert_array_equal(image.rows(270)[0], read_image(data, 'a.jpg'))


def test_damage_is_named(decoder):
    data = encoded(PHOTO)
    with pytest.raises(UnreadableImage, match=r'cut\.jpg'):  # no end: found at once
        EncodedImage(data[: len(data) // 2], 'cut.jpg')
    with pytest.raises(UnreadableImage, match=r'empty\.jpg'):
        EncodedImage(b'', 'empty.jpg')
    missing = EncodedImage(data[: len(data) // 2] + data[-2:], 'missing.jpg')
    with pytest.raises(UnreadableImage, match=r'missing\.jpg'):
        missing.rows(203)
    with pytest.raises(UnreadableImage, match=r'large\.jpg'):
        EncodedImage(data, 'large.jpg', max_pixels=1000)


def test_wrong_codes_give_what_the_full_reading_gives(decoder):
    data = bytearray(encoded(PHOTO))
    data[len(data) // 2 : len(data) // 2 + 40] = b'\x55' * 40
    try:
        expected = read_image(bytes(data), 'a.jpg')
    except UnreadableImage:
        expected = None
    image = EncodedImage(bytes(data), 'a.jpg')
    if expected is None:
        with pytest.raises(UnreadableImage, match=r'a\.jpg'):
            image.rows(203)
    else:
        np.testing.assert_array_equal(image.rows(203)[0], expected)
    whole = EncodedImage(encoded(PHOTO), 'b.jpg').rows(40)[0][:40].copy()
    np.testing.assert_array_equal(image.rows(40)[0][:40], whole)  # above the damage


def test_threads_do_not_write_over_each_other(decoder):
    from concurrent.futures import ThreadPoolExecutor

    files = [encoded(photo(64, 80, seed)) for seed in range(4)]
    told = [EncodedImage(file, '').rows(64)[0].copy() for file in files]

    def decode(number: int) -> bool:
        return all(np.array_equal(EncodedImage(files[number], '').rows(64)[0], told[number]) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(decode, range(4)))
