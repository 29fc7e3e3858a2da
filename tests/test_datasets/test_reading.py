"""Reading images of every kind, and refusing what is none."""

import io
import pickle
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from torch._utils import ExceptionWrapper

from nepa_mm.benchmark.photos import encoded, photo
from nepa_mm.datasets import TooManyBadImagesError, UnreadableImage, read_image, reading
from nepa_mm.datasets.encoded_image import EncodedImage
from nepa_mm.datasets.jpeg_header import read_jpeg_header, whole_jpeg
from nepa_mm.datasets.reading import turn_upright
from tests.damaged import DAMAGE, UNUSUAL, as_release, bomb, encode, picture

# The kinds whose reading is ours, not Pillow's.
SIXTEEN = ('16-bit grey', '16-bit tiff')


@pytest.mark.parametrize('kind', [kind for kind in UNUSUAL if kind not in SIXTEEN])
def test_what_the_release_reads_is_read_alike(kind):
    for seed in range(8):
        data = UNUSUAL[kind][1](seed)
        image = read_image(data, 'a')
        expected = as_release(data)
        assert image.dtype == np.uint8 and image.flags.c_contiguous
        assert np.array_equal(image[..., ::-1], expected), np.abs(image[..., ::-1] - expected.astype(int)).max()


@pytest.mark.parametrize('kind', SIXTEEN)
def test_16_bits_are_scaled(kind):
    assert np.array_equal(read_image(UNUSUAL[kind][1](0), 'a'), np.repeat(picture()[..., :1], 3, axis=2))


def test_16_bits_are_within_1_of_257ths():
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    for data in (encode(values, 'PNG'), cv2.imencode('.pgm', values)[1].tobytes()):
        image = read_image(data, 'a').astype(float)
        assert np.abs(image - values[..., None] / 257).max() < 1
    color = cv2.imencode('.png', np.dstack([values] * 3))[1].tobytes()
    assert np.array_equal(read_image(color, 'a'), read_image(encode(values, 'PNG'), 'a'))


def test_grey_of_release_is_clipped():
    """Why 16-bit grey is not left to Pillow."""
    values = np.uint16([[0, 255, 256, 65535]])
    assert as_release(encode(values, 'PNG'))[0, :, 0].tolist() == [0, 255, 255, 255]
    assert read_image(encode(values, 'PNG'), 'a')[0, :, 0].tolist() == [0, 0, 1, 255]


def test_alpha_is_dropped():
    clear = np.dstack([picture(), np.zeros((48, 64), np.uint8)])
    assert np.array_equal(read_image(encode(clear, 'PNG'), 'a')[..., ::-1], picture())


def test_the_first_of_several_images_is_taken():
    frames = [Image.fromarray(picture(seed)) for seed in range(3)]
    for kind in ('TIFF', 'WEBP', 'PNG'):
        options = dict(lossless=True) if kind == 'WEBP' else {}
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(read_image(data, 'a')[..., ::-1], picture(0)), kind
    data = encode(frames[0], 'GIF', save_all=True, append_images=frames[1:])
    assert np.array_equal(read_image(data, 'a')[..., ::-1], as_release(data))


@pytest.mark.parametrize('turn', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_images_are_turned_upright(turn, kind):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {'WEBP': dict(lossless=True), 'JPEG': dict(quality=98, subsampling=0)}.get(kind, {})
    data = encode(picture(), kind, exif=exif if kind == 'TIFF' else exif.tobytes(), **options)
    image = read_image(data, 'a')
    assert image.shape == ((64, 48, 3) if turn > 4 else (48, 64, 3))
    upright = Image.fromarray(picture())
    upright.getexif()[0x0112] = turn
    expected = np.asarray(ImageOps.exif_transpose(upright))
    assert np.abs(image[..., ::-1] - expected.astype(int)).mean() < (2 if kind == 'JPEG' else 1e-9)


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
@pytest.mark.parametrize(('turns', 'expected'), [((6, None), 6), ((None, 6), 6), ((1, 8), 8), ((3, 8), 3)])
def test_the_first_exif_that_turns_counts_on_every_path(mode, turns, expected):
    data = encoded(photo(48, 64), mode=mode)
    lying = read_image(data, 'a')
    blocks = b''
    for turn in turns:
        exif = Image.Exif()
        if turn is not None:
            exif[0x0112] = turn
        block = exif.tobytes()
        blocks += b'\xff\xe1' + (len(block) + 2).to_bytes(2, 'big') + block
    file = data[:2] + blocks + data[2:]
    for jpeg in (file, file + bytes(9)):
        assert np.array_equal(read_image(jpeg, 'a'), turn_upright(lying, expected))
        assert EncodedImage(jpeg, 'a').shape == ((64, 48) if expected > 4 else (48, 64))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'


def test_xmp_turns_nothing():
    text = PngInfo()
    text.add_itxt('XML:com.adobe.xmp', XMP.decode())
    files = [encode(picture(), 'PNG', pnginfo=text), encode(picture(), 'WEBP', lossless=True, xmp=XMP)]
    tags = ImageFileDirectory_v2()
    tags[700] = XMP
    tags.tagtype[700] = 1
    files += [encode(picture(), 'TIFF', tiffinfo=tags, compression=kind) for kind in (None, 'tiff_lzw')]
    segment = b'http://ns.adobe.com/xap/1.0/\0' + XMP
    for mode in ('RGB', 'CMYK'):
        data = encoded(photo(48, 64), mode=mode)
        files.append(data[:2] + b'\xff\xe1' + (len(segment) + 2).to_bytes(2, 'big') + segment + data[2:])
        files.append(files[-1] + bytes(9))
    for data in files:
        with Image.open(io.BytesIO(data)) as image:
            assert ImageOps.exif_transpose(image).size == (48, 64), 'Pillow alone turns it'
        assert read_image(data, 'a').shape == (48, 64, 3)
        assert EncodedImage(data, 'a').shape == (48, 64)


def test_a_broken_exif_turns_nothing(recwarn):
    data = encode(picture(), exif=b'Exif\0\0II*\0\xff\xff\xff\xff')
    assert read_jpeg_header(data).orientation == 1
    assert read_image(data, 'a').shape == (48, 64, 3)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize('kind', DAMAGE)
def test_damaged(kind):
    for seed in range(8):
        with pytest.raises(UnreadableImage, match=r"^image 'folder/a.jpg' cannot be read: .") as error:
            read_image(DAMAGE[kind][1](seed), 'folder/a.jpg')
        assert error.value.source == 'folder/a.jpg' and error.value.reason


@pytest.mark.parametrize(
    ('kind', 'reason'),
    [
        ('empty', 'empty, 0 bytes'),
        ('web page', 'a web page, not an image'),
        ('pointer', "a Git LFS pointer in an image's place: run git lfs pull"),
        ('zeros', '500 bytes, all zero'),
        ('noise', '501 bytes of no known image format'),
        ('cut short, with an end', 'a part of its data is missing'),
        ('huge', 'more pixels than max_pixels of its loader allows: 65535 x 65535, limit 178,956,970'),
        ('tiff of floats', 'TIFF with samples of mode F, whose range is not known: save it with 8 or 16 bits'),
    ],
)
def test_reasons(kind, reason):
    with pytest.raises(UnreadableImage) as error:
        read_image(DAMAGE[kind][1](0), 'a')
    assert error.value.reason == reason


JPEGS = {
    'default': dict(),
    'quality 95': dict(quality=95),
    'quality 98, progressive': dict(quality=98, progressive=True),
    'many tables': dict(quality=90, optimize=True),
    'restarts': dict(restart_marker_rows=1),
    'grey': dict(mode='L'),
    'cmyk': dict(mode='CMYK'),
}


@pytest.mark.parametrize('kind', JPEGS)
@pytest.mark.parametrize('shape', [(48, 64), (203, 270)])
def test_a_tail_that_was_never_written_is_found(kind, shape):
    """Zeros are codes of pixels: neither OpenCV nor Pillow minds them, whichever the length of the file."""
    data = encoded(photo(*shape), **JPEGS[kind])
    pixels = data.index(b'\xff\xda') + 20
    for part in (0, 0.2, 0.5, 0.7, 0.9, 0.99):
        written = data[: pixels + int((len(data) - pixels) * part)]
        rest = len(data) - len(written)
        for tail in (bytes(rest), bytes(2**18 - len(written)), b'\xff' * 50, b'', data):
            for read in (read_image, EncodedImage):
                with pytest.raises(UnreadableImage, match=r"'a\.jpg' .* cut short: its end mark is missing"):
                    read(written + tail, 'a.jpg')


@pytest.mark.parametrize('kind', JPEGS)
def test_what_stands_behind_the_end_is_no_damage(kind):
    data = encoded(photo(48, 64), **JPEGS[kind])
    image = read_image(data, 'a')
    noise = np.random.default_rng(0).bytes(5000)
    for tail in (b'\n', bytes(100), bytes(2**16), b'\xff' * 9, data, data[:300], noise, noise + b'\xff\xd9'):
        assert np.array_equal(read_image(data + tail, 'a'), image)
        assert np.array_equal(EncodedImage(data + tail, 'a').rows(48)[0], image)


@pytest.mark.parametrize('kind', ['default', 'quality 95', 'many tables', 'grey', 'cmyk'])
@pytest.mark.parametrize('decoder', ['simplejpeg', 'OpenCV'])
def test_a_picture_made_up_before_the_end_is_found(kind, decoder, monkeypatch):
    if decoder == 'OpenCV':
        monkeypatch.setattr(reading, 'simplejpeg', None)
    data = encoded(photo(48, 64), **JPEGS[kind])
    for part in (0.6, 0.8):
        for tail in (b'', b'\n', bytes(10), data):
            with pytest.raises(UnreadableImage, match='a part of its data is missing'):
                read_image(data[: int(len(data) * part)] + b'\xff\xd9' + tail, 'a')


@pytest.mark.skipif(reading.simplejpeg is None, reason='simplejpeg is not installed')
@pytest.mark.parametrize(
    ('kind', 'damage'),
    # Zeros are codes as others are: whether they show depends on the tables and the place.
    [(kind, damage) for kind in JPEGS for damage in ('lost', 'cut before the end')] + [('restarts', 'zeroed')],
)
def test_data_that_is_missing_anywhere_is_found(kind, damage):
    """Decoders go on behind the next mark, of which progressive files and those with restarts have many."""
    data = encoded(photo(203, 270), **JPEGS[kind])
    pixels = data.index(b'\xff\xda') + 20
    for part in (0.05, 0.2, 0.4, 0.6, 0.75):
        at = pixels + int((len(data) - pixels) * part)
        wrong = {
            'lost': data[:at] + data[at + 2000 :],
            'zeroed': data[:at] + bytes(2000) + data[at + 2000 :],
            'cut before the end': data[:at] + b'\xff\xd9',
        }[damage]
        with pytest.raises(UnreadableImage, match='a part of its data is (missing|damaged)'):
            read_image(wrong, 'a')
        with pytest.raises(UnreadableImage, match='a part of its data is (missing|damaged)'):
            EncodedImage(wrong, 'a').rows(203)


@pytest.mark.parametrize('kind', JPEGS)
def test_padding_before_the_end_is_no_damage(kind):
    data = encoded(photo(48, 64), **JPEGS[kind])
    for padding in (bytes(20), b'\xff' * 20):
        padded = data[:-2] + padding + data[-2:]
        assert np.array_equal(read_image(padded, 'a'), read_image(data, 'a'))
        assert np.array_equal(EncodedImage(padded, 'a').rows(48)[0], read_image(data, 'a'))


@pytest.mark.skipif(reading.simplejpeg is None, reason='simplejpeg is not installed')
@pytest.mark.parametrize('kind', [kind for kind in JPEGS if kind != 'cmyk'])
def test_both_decoders_read_alike(kind, monkeypatch):
    data = encoded(photo(203, 270), **JPEGS[kind])
    image = read_image(data, 'a')
    assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
    monkeypatch.setattr(reading, 'simplejpeg', None)
    assert np.array_equal(image, read_image(data, 'a'))


def test_the_end_of_a_jpeg():
    data = encode(picture())
    header = read_jpeg_header(data)
    assert whole_jpeg(data, header) == whole_jpeg(data + bytes(10), header) == data
    assert whole_jpeg(data[:-1], header) is None
    # An end mark in a comment is none, nor is one before the first scan.
    scan = data.index(b'\xff\xda')
    comment = b'\xff\xfe\0\x0a' + b'\xff\xd9' * 4
    assert whole_jpeg(data[:scan] + comment + data[scan:], header) == data[:scan] + comment + data[scan:]
    assert whole_jpeg(data[:scan] + b'\xff\xd9', header) is None
    # Padding before a marker is allowed, also where what looks made up is compared.
    grey = encode(np.full((48, 64, 3), 128, np.uint8))
    assert (read_image(grey[:-2] + b'\xff\xff' + grey[-2:], 'a') == 128).all()


def test_damaged_pngs_are_found():
    """Pillow takes more than half of these for whole ones."""
    data = encoded(photo(100, 120), 'PNG')
    for part in (0.3, 0.5, 0.7, 0.9, 0.95, 0.99):
        kept = int(len(data) * part)
        for wrong in (data[:kept] + bytes(len(data) - kept), data[:kept] + bytes(1) + data[kept + 1 :]):
            with pytest.raises(UnreadableImage, match='damaged: the checksum of its part IDAT does not match'):
                read_image(wrong, 'a')
    with pytest.raises(UnreadableImage, match='cut short: its end mark is missing'):
        read_image(data[:-12], 'a')
    with pytest.raises(UnreadableImage, match='damaged: the checksum of what stands in the place of a part'):
        read_image(data[:-12] + bytes(12), 'a')


def test_a_grey_end_is_no_damage():
    """What looks like a decoder's filling may be the picture."""
    grey = picture()
    grey[16:] = 128
    for options in ({}, dict(progressive=True)):
        image = read_image(encode(grey, quality=95, **options), 'a')
        assert (image[-1, -1] == 128).all()
        assert np.abs(image[:16, :, ::-1] - grey[:16].astype(int)).mean() < 4


def test_max_pixels(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    for data in (encode(picture()), encode(picture(), 'PNG')):
        with pytest.raises(UnreadableImage, match='more pixels than max_pixels .*: 64 x 48, limit 3,071'):
            read_image(data, 'a', max_pixels=64 * 48 - 1)
        assert read_image(data, 'a', max_pixels=64 * 48).shape == (48, 64, 3)
    with pytest.raises(UnreadableImage, match=r'3600000000 pixels|60000 x 60000'):
        read_image(bomb(), 'a')


def test_no_warnings(recwarn):
    for _, make in [*UNUSUAL.values(), *DAMAGE.values()]:
        with suppress(UnreadableImage):
            read_image(make(3), 'a')
    assert [str(warning.message) for warning in recwarn] == []


def test_jpeg_headers():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_jpeg_header(encode(picture(), exif=exif.tobytes()))
    assert (turned.height, turned.width, turned.components, turned.orientation) == (48, 64, 3, 6)
    assert turned.common and not turned.plain
    for options in ({}, dict(progressive=True), dict(quality=95, subsampling=0)):
        assert read_jpeg_header(encode(picture(), **options)).plain
    assert read_jpeg_header(encode(picture()[..., 0])).components == 1
    cmyk = read_jpeg_header(UNUSUAL['cmyk'][1](0))
    assert cmyk.components == 4 and not cmyk.plain
    for data in (b'', b'\xff', b'\xff\xd8', encode(picture())[:150], encode(picture(), 'PNG'), b'\xff\xd8\xff\xd9'):
        assert read_jpeg_header(data) is None


def test_a_header_with_padding_and_restart_marks():
    data = encode(picture())
    padded = data[:2] + b'\xff\xff\xff\xff\xd0' + data[2:]
    assert read_jpeg_header(padded).plain
    assert (read_jpeg_header(padded).height, read_jpeg_header(padded).width) == (48, 64)


@pytest.mark.parametrize(
    'error', [UnreadableImage('a/b.jpg', 'empty: 0 bytes'), TooManyBadImagesError('3 of 4 training images\n  a: b')]
)
def test_errors_of_data_workers_read_as_their_own(error):
    try:
        raise error
    except ValueError:
        handed_over = ExceptionWrapper(where='in DataLoader worker process 0')
    with pytest.raises(type(error)) as caught:
        handed_over.reraise()
    assert str(caught.value) == str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert 'Original Traceback' in caught.value.args[0]


def test_files_of_the_tests_are_as_they_say():
    """The kinds above exist for what others do with them."""
    with Image.open(io.BytesIO(UNUSUAL['cmyk'][1](0))) as image:
        assert image.mode == 'CMYK'
    half = cv2.imdecode(np.frombuffer(DAMAGE['cut short, with an end'][1](0), np.uint8), cv2.IMREAD_COLOR)
    assert (half[-1] == 128).all(), 'OpenCV alone fills up with grey'
