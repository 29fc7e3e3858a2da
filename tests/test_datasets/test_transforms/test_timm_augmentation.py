"""The release's augmentation: ours draws what timm draws, pixel by pixel, from the same random state."""

import math
import random

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from mmengine.dataset import default_collate
from mmengine.runner import Runner
from mmpretrain.registry import MODELS, TRANSFORMS
from mmseg.registry import TRANSFORMS as MMSEG_TRANSFORMS
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import InterpolationMode

import nepa_mm

# What the release hands to timm, and what its mean and standard deviation are in 0..255.
RELEASE = dict(
    input_size=64,
    is_training=True,
    auto_augment='rand-m9-mstd0.5-inc1',
    interpolation='bicubic',
    re_prob=0.25,
    re_mode='pixel',
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
NORMALIZE = dict(type='ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)


@pytest.fixture
def photo() -> np.ndarray:
    """A colourful RGB image (64, 64, 3) that is neither flat nor noise."""
    y, x = np.mgrid[0:64, 0:64] / 64
    waves = np.stack([np.sin(9 * x + 2 * y), np.cos(7 * y - x), np.sin(5 * x * y + 1)], axis=-1)
    return np.clip(127.5 + 127.5 * waves + np.random.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)


def _seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def _timms(**settings):
    """What timm does behind crop and flip: augmentation of a PIL image, then tensor, normalisation and erasing."""
    _, augment, finish = create_transform(**{**RELEASE, **settings}, separate=True)
    for operation in augment.transforms[0].ops:
        if operation.name == 'PosterizeIncreasing':
            # Zero bits, with the arithmetic that Pillow did before it refused them.
            operation.aug_fn = lambda image, bits, **_: image.point(lambda value: value & (256 - 2 ** (8 - bits)))
    return augment, finish


def _run(steps: list[dict], rgb: np.ndarray) -> dict:
    results = dict(img=np.ascontiguousarray(rgb[..., ::-1]))
    for step in steps:
        results = TRANSFORMS.build(step)(results)
    return results


def test_rand_augment_is_timms(photo):
    theirs, _ = _timms()
    changed = 0
    for number in range(100):
        _seed(number)
        expected = np.asarray(theirs(Image.fromarray(photo)))
        _seed(number)
        got = _run([dict(type='TimmRandAugment')], photo)['img'][..., ::-1]
        np.testing.assert_array_equal(got, expected)
        changed += not np.array_equal(got, photo)
    assert changed > 50  # two operations, each with probability .5


def test_rand_augment_posterizes_to_nothing(photo):
    transform = TRANSFORMS.build(dict(type='TimmRandAugment', config_str='rand-m10-p1.0-inc1'))
    transform.augment.ops = [op for op in transform.augment.ops if op.name == 'PosterizeIncreasing']
    assert len(transform.augment.ops) == 1
    assert transform(dict(img=photo))['img'].max() == 0  # 4 - 4 bits: black, as Pillow made it before it refused


def test_rand_augment_takes_other_settings(photo):
    transform = TRANSFORMS.build(
        dict(type='TimmRandAugment', config_str='rand-m5-n3-p1.0', interpolation='bilinear', fill_color=[1, 2, 3])
    )
    ops = transform.augment.ops
    assert (transform.augment.num_layers, ops[0].prob, ops[0].magnitude, ops[0].magnitude_std) == (3, 1.0, 5, 0)
    assert ops[3].kwargs == dict(fillcolor=(1, 2, 3), resample=Image.Resampling.BILINEAR)
    transform.augment.ops = [op for op in ops if op.name == 'TranslateXRel']
    uncovered = transform(dict(img=np.zeros_like(photo)))['img'].reshape(-1, 3).max(0)
    assert uncovered.tolist() == [3, 2, 1]  # the colour is RGB, the image BGR


def test_erasing_and_what_follows_is_timms(photo):
    augment, finish = _timms(re_prob=1.0)
    preprocess = MODELS.build(NORMALIZE)
    steps = [dict(type='TimmRandAugment'), dict(type='TimmRandomErasing', prob=1.0), dict(type='PackInputs')]
    for number in range(20):
        _seed(number)
        expected = finish(augment(Image.fromarray(photo)))
        _seed(number)
        batch = preprocess(default_collate([_run(steps, photo)]), training=True)['inputs']
        torch.testing.assert_close(batch[0], expected, rtol=0, atol=2e-6)
        assert expected.abs().max() > 1.5  # noise beyond what a pixel can hold


@pytest.mark.parametrize('mode', ['const', 'rand', 'pixel'])
def test_erasing_with_another_mean(photo, mode):
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    _, finish = _timms(re_prob=1.0, re_mode=mode, mean=np.divide(mean, 255), std=np.divide(std, 255))
    _seed(3)
    expected = finish(Image.fromarray(photo))
    _seed(3)
    results = _run([dict(type='TimmRandomErasing', prob=1.0, mode=mode, mean=mean, std=std)], photo)
    got = (torch.from_numpy(results['img'][..., ::-1].copy()) - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(got.permute(2, 0, 1), expected, rtol=0, atol=5e-6)


def test_erasing_leaves_the_share_it_should(photo):
    transform = TRANSFORMS.build(dict(type='TimmRandomErasing'))
    results = [transform(dict(img=photo))['img'] for _ in range(400)]
    assert {image.dtype for image in results} == {np.dtype(np.float32)}  # or a batch could not be stacked
    untouched = np.mean([np.array_equal(image, photo) for image in results])
    assert 0.68 < untouched < 0.82  # .75, three deviations of 400 draws


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [(70, 90), (300, 40), (33, 200)])
def test_mmpretrain_crop_with_pillow_is_timms(monkeypatch, interpolation, size):
    """Box and pixels: no class of ours is needed. (300, 40) and (33, 200) also take the way out after ten attempts."""
    image = np.random.randint(0, 256, (*size, 3), np.uint8)
    theirs = RandomResizedCropAndInterpolation(48, interpolation=interpolation)
    ours = TRANSFORMS.build(dict(type='RandomResizedCrop', scale=48, backend='pillow', interpolation=interpolation))
    for number in range(10):
        random.seed(number)
        expected = np.asarray(theirs(Image.fromarray(image)))
        # The same draws, made by the same generator.
        monkeypatch.setattr(np.random, 'uniform', random.uniform)
        monkeypatch.setattr(np.random, 'randint', lambda low, high: random.randint(low, high - 1))
        random.seed(number)
        got = ours(dict(img=image))['img']
        monkeypatch.undo()
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('size', [(256, 256), (300, 451), (511, 300), (97, 64), (1001, 333)])
def test_evaluation_of_the_base_model(size):
    """Shorter side 256, bicubic and anti-aliased by PIL, centre 224: torchvision's, pixel by pixel."""
    image = np.random.randint(0, 256, (*size, 3), np.uint8)
    steps = [
        dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=224),
    ]
    resized = F.resize(Image.fromarray(image), 256, InterpolationMode.BICUBIC)
    expected = np.asarray(F.center_crop(resized, 224))
    np.testing.assert_array_equal(_run(steps, image)['img'][..., ::-1], expected)


@pytest.mark.parametrize('size', [(235, 235), (300, 451), (97, 64)])
def test_evaluation_of_the_large_model(size):
    """Exactly 235 x 235 whatever the shape, centre 224."""
    image = np.random.randint(0, 256, (*size, 3), np.uint8)
    steps = [
        dict(type='Resize', scale=(235, 235), backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=224),
    ]
    squashed = F.resize(Image.fromarray(image), [235, 235], InterpolationMode.BICUBIC)
    np.testing.assert_array_equal(_run(steps, image)['img'][..., ::-1], np.asarray(F.center_crop(squashed, 224)))


def test_draws_in_workers_follow_the_seed(tmp_path, photo):
    for number in range(4):
        (tmp_path / 'images').mkdir(exist_ok=True)
        Image.fromarray(np.roll(photo, number, 0)).save(tmp_path / 'images' / f'{number}.png')
    steps = [dict(type='LoadImageFromFile'), dict(type='TimmRandAugment'), dict(type='TimmRandomErasing', prob=1.0)]
    loader = dict(
        batch_size=4,
        num_workers=2,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='mmpretrain.CustomDataset',
            data_root=str(tmp_path / 'images'),
            with_label=False,
            pipeline=[*steps, dict(type='PackInputs')],
            _scope_='mmpretrain',
        ),
    )
    first, again, other = (next(iter(Runner.build_dataloader(loader, seed=seed)))['inputs'] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ('step', 'message'),
    [
        (dict(type='TimmRandAugment', config_str='randm9'), "'randm9' is not a RandAugment"),
        (dict(type='TimmRandAugment', config_str='rand-m9-magstd.5'), "cannot read 'magstd.5'"),
        (dict(type='TimmRandAugment', interpolation='area'), "interpolation='area' is not known"),
        (dict(type='TimmRandomErasing', mode='noise'), "mode='noise' is not known"),
        (dict(type='TimmRandomErasing', prob=25), r'prob=25 must lie in 0\.\.1'),
        (dict(type='TimmRandomErasing', min_area=0.5), 'min_area=0.5 and max_area=0.33'),
        (dict(type='TimmRandomErasing', min_aspect=3.3), 'min_aspect=3.3 must lie in'),
        (dict(type='TimmRandomErasing', max_count=0), 'max_count=0 must be 1 or more'),
        (dict(type='TimmRandomErasing', mean=[0.5]), 'must have three entries each'),
    ],
)
def test_refusals(step, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(step)


def test_rand_augment_refuses_floats(photo):
    with pytest.raises(ValueError, match=r'uint8 image \(H, W, 3\), got float32 \(64, 64, 3\): put it before'):
        _run([dict(type='TimmRandomErasing'), dict(type='TimmRandAugment')], photo)


@pytest.mark.parametrize('name', ['TimmRandAugment', 'TimmRandomErasing'])
def test_both_hosts_build_the_same_class(name):
    assert TRANSFORMS.get(name) is MMSEG_TRANSFORMS.get(name) is getattr(nepa_mm.datasets, name)


def test_repr_names_the_settings():
    assert "config_str='rand-m9-mstd0.5-inc1'" in repr(TRANSFORMS.build(dict(type='TimmRandAugment')))
    assert math.isclose(float(repr(TRANSFORMS.build(dict(type='TimmRandomErasing'))).split('prob=')[1][:4]), 0.25)
