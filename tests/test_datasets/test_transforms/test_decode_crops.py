"""Steps that decode a crop draw what the hosts' steps draw, and give their pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from PIL import Image

import nepa_mm  # noqa: F401  (registers)
from nepa_mm.benchmark.photos import encoded, photo
from nepa_mm.datasets import UnreadableImage, encoded_image, reading
from nepa_mm.datasets.encoded_image import EncodedImage
from nepa_mm.datasets.transforms.decode_random_resized_crop import decode_box
from nepa_mm.datasets.transforms.decode_seg_crop import decode_window

PIL_FILTERS = dict(bilinear=Image.Resampling.BILINEAR, bicubic=Image.Resampling.BICUBIC)


@pytest.fixture(params=['simplejpeg', 'OpenCV'])
def decoder(request, monkeypatch) -> str:
    """Both decoders, the first one where it is installed."""
    if request.param == 'OpenCV':
        for module in (encoded_image, reading):
            monkeypatch.setattr(module, 'simplejpeg', None)
    elif encoded_image.simplejpeg is None:
        pytest.skip('simplejpeg is not installed')
    return request.param


def composed(scope: str, *steps: dict) -> Compose:
    with DefaultScope.overwrite_default_scope(scope):
        return Compose(list(steps))


def difference(a: np.ndarray, b: np.ndarray) -> tuple[int, float]:
    """Largest and mean, in grey levels."""
    off = np.abs(np.asarray(a, np.int32) - np.asarray(b, np.int32))
    return int(off.max()), float(off.mean())


def saved(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize(
    ('shape', 'box', 'size'),
    [
        ((375, 500), (0, 0, 375, 500), 224),
        ((375, 500), (40, 61, 275, 303), 224),
        ((375, 500), (201, 7, 96, 113), 224),  # enlarged
        ((375, 500), (370, 490, 5, 7), 224),  # tiny
        ((375, 500), (31, 57, 320, 401), 70),  # reduced by 2 while it is decoded
        ((375, 500), (3, 61, 371, 352), 40),  # by 4
        ((375, 500), (0, 101, 373, 399), 20),  # by 8
    ],
)
def test_pixels_are_those_of_the_release(decoder, shape, box, size, interpolation):
    """PIL's crop and anti-aliased resize of the full image, to which torchvision's and timm's come down."""
    data = encoded(photo(*shape), quality=90)
    top, left, height, width = box
    crop = Image.open(io.BytesIO(data)).crop((left, top, left + width, top + height))
    told = np.asarray(crop.resize((size, size), PIL_FILTERS[interpolation]))[..., ::-1]
    got = decode_box(EncodedImage(data, 'a.jpg'), box, (size, size), interpolation)
    largest, mean = difference(got, told)
    if size == 224:
        assert largest <= 2 and mean < 0.02
    else:
        assert 0 < mean <= 2


@pytest.mark.parametrize('shape', [(150, 200), (40, 200), (133, 30)])
def test_random_resized_crop_draws_what_mmpretrain_draws(decoder, tmp_path, shape):
    """The latter two take the way out after ten attempts, too."""
    path = saved(tmp_path, 'a.jpg', encoded(photo(*shape)))
    host = composed(
        'mmpretrain',
        dict(type='LoadImageFromFile'),
        dict(type='RandomResizedCrop', scale=(48, 64), backend='pillow', interpolation='bicubic'),
        dict(type='RandomFlip', prob=0.3),
        dict(type='PackInputs'),
    )
    ours = composed(
        'mmpretrain',
        dict(type='LoadEncodedImage'),
        dict(type='DecodeRandomResizedCrop', scale=(48, 64), interpolation='bicubic', flip_prob=0.3),
        dict(type='PackInputs'),
    )
    flips = []
    for seed in range(40):
        np.random.seed(seed)
        told, after = host(dict(img_path=path)), np.random.random_sample()
        np.random.seed(seed)
        got = ours(dict(img_path=path))
        assert np.random.random_sample() == after
        largest, mean = difference(got['inputs'], told['inputs'])
        assert largest <= 2 and mean < 0.3
        flips.append(got['data_samples'].flip)
        for key in ('flip', 'flip_direction', 'ori_shape', 'img_path'):
            assert got['data_samples'].get(key) == told['data_samples'].get(key)
    assert 3 < sum(flips) < 22


def test_batches_are_bytes_that_are_packed_without_a_copy(tmp_path):
    path = saved(tmp_path, 'a.jpg', encoded(photo(100, 120)))
    steps = [dict(type='LoadEncodedImage'), dict(type='DecodeRandomResizedCrop', scale=32)]
    results = composed('mmpretrain', *steps)(dict(img_path=path))
    image = results['img']
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8 and 'encoded' not in results
    assert image.transpose(2, 0, 1).flags.c_contiguous
    packed = composed('mmpretrain', dict(type='PackInputs'))(results)
    assert packed['inputs'].data_ptr() == image.__array_interface__['data'][0]
    batch = default_collate([packed, packed])
    assert batch['inputs'].dtype == torch.uint8 and batch['inputs'].shape == (2, 3, 32, 32)


def test_images_in_memory(tmp_path):
    data = encoded(photo(60, 80))
    pipeline = composed('mmpretrain', dict(type='LoadEncodedImage'), dict(type='DecodeRandomResizedCrop', scale=32))
    np.random.seed(0)
    told = pipeline(dict(img_path=saved(tmp_path, 'a.jpg', data)))['img']
    np.random.seed(0)
    results = pipeline(dict(img_path='table[0]', img_bytes=data))
    np.testing.assert_array_equal(results['img'], told)
    assert 'img_bytes' not in results


def test_crops_of_damaged_files_name_them(decoder, tmp_path):
    data = encoded(photo(60, 80))
    pipeline = composed(
        'mmpretrain',
        dict(type='LoadEncodedImage'),
        dict(type='DecodeRandomResizedCrop', scale=32, crop_ratio_range=(1.0, 1.0)),
    )
    with pytest.raises(UnreadableImage, match=r'cut\.jpg'):
        pipeline(dict(img_path=saved(tmp_path, 'cut.jpg', data[:-100])))
    with pytest.raises(UnreadableImage, match=r'nowhere\.jpg'):
        pipeline(dict(img_path=str(tmp_path / 'nowhere.jpg')))


def test_a_missing_decoder_is_logged(monkeypatch, logged):
    monkeypatch.setattr(encoded_image, 'simplejpeg', None)
    composed('mmpretrain', dict(type='LoadEncodedImage'))
    assert any('pip install simplejpeg' in text for text in logged)


def test_settings_are_checked():
    for wrong, message in ((dict(interpolation='area'), 'area'), (dict(flip_prob=1.5), 'flip_prob=1.5')):
        with pytest.raises(ValueError, match=message):
            composed('mmpretrain', dict(type='DecodeRandomResizedCrop', scale=32, **wrong))
    with pytest.raises(ValueError, match='flip_prob=-1'):
        composed('mmseg', dict(type='DecodeSegCrop', scale=(64, 32), ratio_range=(0.5, 2), crop_size=8, flip_prob=-1))


# ---------------------------------------------------------------------------------------------------- segmentation


@pytest.fixture
def sample(tmp_path) -> dict:
    """An image of 185 x 250 and labels in blocks, of which one fills half."""
    label = np.kron(np.random.default_rng(0).integers(0, 6, (5, 5), dtype=np.uint8), np.ones((37, 50), np.uint8))
    label[:, 125:] = 3
    label[:, ::41] = 255
    Image.fromarray(label).save(tmp_path / 'a.png')
    path = saved(tmp_path, 'a.jpg', encoded(photo(185, 250), quality=90))
    common = dict(reduce_zero_label=True, label_map=None)
    return dict(img_path=path, seg_map_path=str(tmp_path / 'a.png'), **common)


def seg_pipelines(crop: tuple[int, int], *after: dict, scale=(1024, 256)) -> tuple[Compose, Compose]:
    resize = dict(scale=scale, ratio_range=(0.5, 2.0))
    cut = dict(crop_size=crop, cat_max_ratio=0.75)
    host = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='RandomResize', keep_ratio=True, **resize),
        dict(type='RandomCrop', **cut),
        dict(type='RandomFlip', prob=0.5),
    ]
    ours = [dict(type='LoadEncodedImage'), dict(type='LoadAnnotations'), dict(type='DecodeSegCrop', **resize, **cut)]
    pack = dict(type='PackSegInputs')
    return composed('mmseg', *host, *after, pack), composed('mmseg', *ours, *after, pack)


@pytest.mark.parametrize('crop', [(256, 256), (112, 150), (32, 32)])
def test_seg_crop_is_mmsegs(decoder, sample, crop):
    host, ours = seg_pipelines(crop)
    for seed in range(25):
        np.random.seed(seed)
        told, after = host(dict(sample, seg_fields=[])), np.random.random_sample()
        np.random.seed(seed)
        got = ours(dict(sample, seg_fields=[]))
        assert np.random.random_sample() == after
        assert torch.equal(got['data_samples'].gt_sem_seg.data, told['data_samples'].gt_sem_seg.data)
        assert got['data_samples'].metainfo == told['data_samples'].metainfo
        largest, mean = difference(got['inputs'], told['inputs'])
        assert got['inputs'].dtype == torch.uint8
        assert largest <= 1 and mean < 0.001


@pytest.mark.parametrize('shape', [(100, 140), (256, 341), (160, 480)])
@pytest.mark.parametrize('ratio', [0.3, 0.5, 0.71, 1.0, 1.37, 2.0])
def test_windows_of_any_ratio(shape, ratio):
    """At the edges and between them, a window of the resized image is the window resized."""
    import cv2

    rgb = photo(*shape)
    image = EncodedImage(encoded(rgb, 'PNG'), 'a.png')
    new = tuple(int(side * ratio + 0.5) for side in shape)
    told = cv2.resize(rgb[..., ::-1].copy(), new[::-1])
    size = min(new[0], 130), min(new[1], 150)
    for top in (0, (new[0] - size[0]) // 3, new[0] - size[0]):
        for left in (0, (new[1] - size[1]) // 3, new[1] - size[1]):
            got = decode_window(image, new, (top, left, *size))
            largest, mean = difference(got, told[top : top + size[0], left : left + size[1]])
            assert got.shape == (*size, 3)
            assert largest <= 1 and mean < 0.001


def test_other_fields_are_refused(sample):
    _, ours = seg_pipelines((64, 64))
    with pytest.raises(ValueError, match='gt_depth'):
        ours(dict(sample, seg_fields=['gt_depth']))


def test_photo_metric_distortion_is_mmsegs():
    host, ours = (
        composed('mmseg', dict(type=kind)) for kind in ('PhotoMetricDistortion', 'TablePhotoMetricDistortion')
    )
    image = np.ascontiguousarray(photo(64, 96)[..., ::-1])
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)
    changed = 0
    for seed in range(120):
        np.random.seed(seed)
        told, after = host(dict(img=image))['img'], np.random.random_sample()
        for given in (image, planes):
            before = given.copy()
            np.random.seed(seed)
            got = ours(dict(img=given))['img']
            assert np.random.random_sample() == after
            np.testing.assert_array_equal(got, told)
            np.testing.assert_array_equal(given, before)
        changed += not np.array_equal(told, image)
    assert changed > 90
