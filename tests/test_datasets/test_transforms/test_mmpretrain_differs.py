"""By how much mmpretrain's own augmentation differs from timm's: the figures of docs/augmentation.md.

Measured on two photographs. A figure that a new mmpretrain moves to 0 says that a class of ours is no longer needed.
"""

import numpy as np
import pytest
from mmpretrain.registry import BATCH_AUGMENTS, TRANSFORMS
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data.auto_augment import NAME_TO_OP
from timm.data.mixup import rand_bbox

import nepa_mm  # noqa: F401  (registers)

PHOTOS = [Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC) for image in load_sample_images().images]
DRAWING = dict(resample=Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
# mmpretrain's step at a magnitude of 9, timm's function and what it takes for the same effect, and the mean difference
# in grey levels.
UNSIGNED = ('AutoContrast', 'Equalize', 'Invert', 'PosterizeIncreasing', 'SolarizeIncreasing', 'SolarizeAdd')
OPERATIONS = [
    ('AutoContrast', {}, 'AutoContrast', (), 0),
    ('Equalize', {}, 'Equalize', (), 0),
    ('Invert', {}, 'Invert', (), 0),
    ('Posterize', dict(bits=1), 'PosterizeIncreasing', (1,), 0),
    ('Solarize', dict(thr=26), 'SolarizeIncreasing', (26,), 0),
    ('SolarizeAdd', dict(magnitude=99), 'SolarizeAdd', (99,), 0),
    ('Brightness', dict(magnitude=0.81), 'BrightnessIncreasing', (1.81,), 0),
    ('Contrast', dict(magnitude=0.81), 'ContrastIncreasing', (1.81,), 0.0),
    ('ColorTransform', dict(magnitude=0.81), 'ColorIncreasing', (1.81,), 0.4),
    ('Sharpness', dict(magnitude=0.81), 'SharpnessIncreasing', (1.81,), 0.4),
    ('Translate', dict(magnitude=0.405), 'TranslateXRel', (-0.405,), 0.5),
    ('Rotate', dict(angle=27.0), 'Rotate', (-27.0,), 0.9),
    ('Shear', dict(magnitude=0.27), 'ShearX', (-0.27,), 1.3),
]


@pytest.mark.parametrize(('kind', 'settings', 'name', 'values', 'mean'), OPERATIONS)
def test_operations(kind, settings, name, values, mean):
    geometric = kind in ('Translate', 'Rotate', 'Shear')
    drawing = dict(pad_val=[128, 128, 128], interpolation='bicubic') if geometric else {}
    signed = {} if name in UNSIGNED else dict(random_negative_prob=0.0)
    step = TRANSFORMS.build(dict(type=kind, prob=1.0, **settings, **drawing, **signed))
    differences = []
    for photo in PHOTOS:
        theirs = np.asarray(NAME_TO_OP[name](photo, *values, **(DRAWING if geometric else {})), np.int32)
        ours = step(dict(img=np.ascontiguousarray(np.asarray(photo)[..., ::-1])))['img'][..., ::-1]
        differences.append(np.abs(ours - theirs))
    assert np.mean(differences) == pytest.approx(mean, abs=0.05 if mean else 0.01)


@pytest.mark.parametrize(
    ('mode', 'suffix'),
    [('RGB', 'jpg'), ('L', 'jpg'), ('CMYK', 'jpg'), ('RGB', 'png'), ('RGBA', 'png'), ('P', 'png')],
)
def test_decoding(tmp_path, mode, suffix):
    path = tmp_path / f'photo.{suffix}'
    PHOTOS[0].convert(mode).save(path)
    ours = TRANSFORMS.build(dict(type='LoadImageFromFile'))(dict(img_path=str(path)))['img'][..., ::-1]
    theirs = np.asarray(Image.open(path).convert('RGB'), np.int32)
    np.testing.assert_array_equal(ours, theirs)


def test_decoding_turns_by_exif(tmp_path):
    path, exif = tmp_path / 'photo.png', Image.Exif()
    exif[274] = 6  # the camera was held upright
    PHOTOS[0].crop((0, 0, 100, 60)).save(path, exif=exif)
    assert TRANSFORMS.build(dict(type='LoadImageFromFile'))(dict(img_path=str(path)))['img'].shape == (100, 60, 3)
    assert np.asarray(Image.open(path)).shape == (60, 100, 3)


def test_erasing():
    """A third of the noise is clipped, so its deviation is .72 where timm's is 1."""
    step = TRANSFORMS.build(
        dict(
            type='RandomErasing',
            erase_prob=1.0,
            mode='rand',
            min_area_ratio=0.02,
            max_area_ratio=1 / 3,
            fill_color=[127.5] * 3,
            fill_std=[127.5] * 3,
        )
    )
    noise = []
    for _ in range(1000):
        image = step(dict(img=np.full((64, 64, 3), 77, np.uint8)))['img']
        erased = (image != 77).any(-1)
        noise.append((image[erased] / 127.5 - 1).ravel())
    noise = np.concatenate(noise)
    assert noise.std() == pytest.approx(0.72, abs=0.01)
    assert (np.abs(noise) > 0.99).mean() == pytest.approx(0.32, abs=0.01)


def test_cutmix_boxes():
    """An odd length loses a pixel in mmpretrain, and did in timm up to 2026; the labels follow the box either way."""
    cut = BATCH_AUGMENTS.build(dict(type='CutMix', alpha=1.0))
    shares, differing = [], 0
    for number, ratio in enumerate(np.random.beta(1, 1, 2000)):
        boxes = []
        for draw in (cut.rand_bbox, rand_bbox):
            np.random.seed(number)
            boxes.append(draw((224, 224), ratio))
        areas = [(bottom - top) * (right - left) / 224**2 for top, bottom, left, right in boxes]
        shares.append(abs(areas[0] - areas[1]))
        differing += boxes[0] != boxes[1]
    assert differing > 500
    assert np.mean(shares) == pytest.approx(0.0015, abs=0.0002)
