"""Images as users hand them in."""

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from nepa_mm.apis.images import ImageError, as_list, list_files, name_of, to_bgr
from nepa_mm.apis.preprocessing import Preprocessing, batches
from tests.predictors import noise, write

IMAGE = noise(np.random.default_rng(0), (20, 30))
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
TURNED = PIL.Image.Exif()
TURNED[0x0112] = 6
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'


def png_text():
    text = PngInfo()
    text.add_itxt('XML:com.adobe.xmp', XMP.decode())
    return text


def tiff_tags():
    tags = ImageFileDirectory_v2()
    tags[700], tags.tagtype[700] = XMP, 1
    return tags


# Mode, suffix and how it is saved.
IN_MEMORY = {
    '16-bit grey PNG': ('I;16', '.png', {}),
    '16-bit grey TIFF': ('I;16', '.tif', {}),
    'CMYK JPEG': ('CMYK', '.jpg', {}),
    'CMYK TIFF': ('CMYK', '.tif', {}),
    'palette with transparency': ('P', '.png', dict(transparency=bytes(range(256)))),
    'alpha': ('RGBA', '.png', {}),
    'JPEG': ('RGB', '.jpg', {}),
    **{f'EXIF turn {kind}': ('RGB', kind, dict(exif=TURNED)) for kind in ('.jpg', '.png', '.tif')},
    'XMP turn .png': ('RGB', '.png', dict(pnginfo=png_text())),
    'XMP turn .jpg': ('RGB', '.jpg', dict(xmp=XMP)),
    'XMP turn .tif': ('RGB', '.tif', dict(tiffinfo=tiff_tags())),
}


def pixels(item):
    return item['inputs'].permute(1, 2, 0).numpy()


def test_folders_and_lists(tmp_path):
    for name in ('b.png', 'a/c.JPG', '.hidden/d.png', 'a/.e.png'):
        write(tmp_path / name, IMAGE)
    (tmp_path / 'notes.txt').write_text('no image')
    files = [tmp_path / 'a/c.JPG', tmp_path / 'b.png']
    assert list_files(tmp_path) == files
    assert as_list(tmp_path) == (files, True)
    assert as_list([str(tmp_path / 'b.png'), tmp_path]) == ([str(tmp_path / 'b.png'), *files], True)
    assert as_list('x.png') == (['x.png'], False)
    items, many = as_list((IMAGE,))
    assert items[0] is IMAGE and many
    assert name_of(tmp_path / 'b.png') == str(tmp_path / 'b.png') and name_of(IMAGE) is None


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    write(tmp_path / 'a/b.png', IMAGE)
    assert as_list('~/a') == ([tmp_path / 'a/b.png'], True)
    assert as_list('~/a/b.png') == ([str(tmp_path / 'a/b.png')], False)


def test_what_is_no_image_is_refused(tmp_path):
    with pytest.raises(ImageError, match=r'no files to read \(\.jpg, .*\) in folder'):
        as_list(tmp_path)
    with pytest.raises(ImageError, match='an image is a path, a PIL image or an array .* but got int'):
        as_list([3])
    for array in (IMAGE.astype(np.float32), IMAGE[None], IMAGE[:0]):
        with pytest.raises(ImageError, match='an image array is uint8'):
            to_bgr(array)


def test_arrays_are_bgr_and_pil_images_rgb():
    assert to_bgr(IMAGE) is IMAGE
    assert np.array_equal(to_bgr(PIL.Image.fromarray(IMAGE[..., ::-1])), IMAGE)
    grey = to_bgr(IMAGE[..., 0])
    assert grey.shape == (20, 30, 3) and (grey == IMAGE[..., :1]).all()
    assert np.array_equal(to_bgr(PIL.Image.fromarray(IMAGE[..., 0])), grey)


def test_a_pil_image_is_turned_as_the_file_is(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    PIL.Image.fromarray(IMAGE[..., ::-1]).save(tmp_path / 'a.png', exif=exif)
    load = Preprocessing(PIPELINE, 'mmseg')
    from_file, from_pil = load(tmp_path / 'a.png'), load(PIL.Image.open(tmp_path / 'a.png'))
    assert pixels(from_file).shape == (30, 20, 3)
    assert np.array_equal(pixels(from_file), pixels(from_pil))


@pytest.mark.parametrize('name', IN_MEMORY)
def test_an_image_in_memory_is_what_its_file_is(name, tmp_path, recwarn):
    mode, suffix, options = IN_MEMORY[name]
    if mode == 'I;16':
        image = PIL.Image.fromarray(IMAGE[..., 0].astype(np.uint16) * 251)
    else:
        image = PIL.Image.fromarray(IMAGE[..., ::-1]).convert(mode)
    image.save(tmp_path / f'a{suffix}', **options)
    load = Preprocessing(PIPELINE, 'mmseg')
    from_file = pixels(load(tmp_path / f'a{suffix}'))
    with PIL.Image.open(tmp_path / f'a{suffix}') as opened:
        assert np.array_equal(pixels(load(opened)), from_file)
        assert np.array_equal(pixels(load(opened)), from_file), 'the image stays as it was'
        if 'XMP' in name:
            assert PIL.ImageOps.exif_transpose(opened.copy()).size == (20, 30), 'Pillow alone turns it'
    assert from_file.shape == ((30, 20, 3) if 'EXIF' in name else (20, 30, 3))
    if mode == 'I;16':
        assert np.array_equal(from_file, np.repeat((IMAGE[..., :1].astype(int) * 251) >> 8, 3, axis=2))
        assert np.array_equal(to_bgr(image), from_file), 'also where it never was a file'
    assert not [str(warning.message) for warning in recwarn]


def test_pil_images_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(ImageError, match='an image with samples of mode F, whose range is not known'):
        to_bgr(PIL.Image.fromarray(np.zeros((2, 3), np.float32)))
    PIL.Image.fromarray(IMAGE).save(tmp_path / 'a.jpg')
    content = (tmp_path / 'a.jpg').read_bytes()
    (tmp_path / 'a.jpg').write_bytes(content[:-50])
    with PIL.Image.open(tmp_path / 'a.jpg') as image, pytest.raises(ImageError, match='a PIL image cannot be read: '):
        to_bgr(image)


def test_the_pipeline_of_the_config_and_no_labels(tmp_path):
    write(tmp_path / 'a.png', IMAGE)
    pipeline = [*PIPELINE[:2], dict(type='Resize', scale=(60, 60), keep_ratio=True), PIPELINE[2]]
    item = Preprocessing(pipeline, 'mmseg')(tmp_path / 'a.png')
    assert np.array_equal(pixels(item), cv2.resize(IMAGE, (60, 40)))
    sample = item['data_samples']
    assert (sample.ori_shape, sample.img_shape, sample.img_path) == ((20, 30), (40, 60), str(tmp_path / 'a.png'))
    assert np.array_equal(pixels(Preprocessing(pipeline, 'mmseg')(IMAGE)), pixels(item))
    grey = Preprocessing([dict(type='LoadImageFromFile', color_type='grayscale'), PIPELINE[2]], 'mmseg')
    with pytest.raises(ImageError, match=r'3 channels here, but got an array of shape \(20, 30\)'):
        grey(tmp_path / 'a.png')


def test_unreadable_files_are_named(tmp_path):
    load = Preprocessing(PIPELINE, 'mmseg')
    with pytest.raises(ImageError, match=r"image '.*gone\.png' does not exist"):
        load(tmp_path / 'gone.png')
    (tmp_path / 'text.jpg').write_text('hello')
    with pytest.raises(ImageError, match=r"image '.*text\.jpg' cannot be read"):
        load(tmp_path / 'text.jpg')
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / 'a.jpg')
    content = (tmp_path / 'a.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(content[: len(content) // 2])
    assert cv2.imread(str(tmp_path / 'cut.jpg')) is not None, 'OpenCV says nothing'
    with pytest.raises(ImageError, match=r"image '.*cut\.jpg' cannot be read: cut short: its end mark is missing"):
        load(tmp_path / 'cut.jpg')


def test_a_broken_png_is_damaged_too(tmp_path):
    write(tmp_path / 'a.png', noise(np.random.default_rng(0), (60, 60)))
    content = bytearray((tmp_path / 'a.png').read_bytes())
    content[60:70] = b'\0' * 10
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(ImageError, match=r"image '.*a\.png' cannot be read: ."):
        Preprocessing(PIPELINE, 'mmseg')(tmp_path / 'a.png')


def test_very_large_images_are_read(tmp_path, monkeypatch):
    """PIL takes them for an attack; they are aerial images."""
    write(tmp_path / 'a.png', IMAGE)
    for limit in (IMAGE.size // 4, IMAGE.size // 12):  # a warning, an error
        monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', limit)
        assert np.array_equal(pixels(Preprocessing(PIPELINE, 'mmseg')(tmp_path / 'a.png')), IMAGE)


def test_batches_hold_neighbours_of_one_size():
    load = Preprocessing(PIPELINE, 'mmseg')
    shapes = [(8, 8), (8, 8), (8, 8), (6, 8), (8, 8)]
    items = [(i, load(np.zeros((*shape, 3), np.uint8))) for i, shape in enumerate(shapes)]
    numbers = [[i for i, _ in batch] for batch in batches(iter(items), 2)]
    assert numbers == [[0, 1], [2], [3], [4]]
    with pytest.raises(ValueError, match='batch_size=0 is not a positive number'):
        next(batches(iter(items), 0))
