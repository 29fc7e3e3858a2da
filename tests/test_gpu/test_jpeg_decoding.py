"""JPEG files that are decoded where the model is give the pixels of DecodeRandomResizedCrop, and none is made up."""

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.dataset import default_collate
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

import nepa_mm  # noqa: F401  (registers)
from nepa_mm.benchmark.photos import encoded, photo
from nepa_mm.datasets import UnreadableImage, collate_encoded
from tests.damaged import DAMAGE, UNUSUAL, encode, picture

KINDS = {
    '4:2:0': dict(),
    '4:2:2': dict(subsampling=1),
    '4:4:4': dict(subsampling=0),
    'grey': dict(mode='L'),
    'progressive': dict(progressive=True),
    'restarts': dict(restart_marker_rows=2),
}


def pipeline(step: str, size: int, interpolation: str = 'bilinear', **settings) -> Compose:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        crop = dict(type=step, scale=size, interpolation=interpolation, **settings)
        return Compose([dict(type='LoadEncodedImage'), crop, dict(type='PackInputs', algorithm_keys=['crop'])])


def preprocessor(kind: str, device: torch.device) -> torch.nn.Module:
    settings = dict(mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(type=kind, **settings)).to(device)


def batches(files: list[bytes], size: int, device: torch.device, **settings) -> tuple[Tensor, Tensor]:
    """What the files become when the workers decode them, and when the device does, in grey levels, (B, 3, S, S)."""
    made = []
    for step, collate, kind in (
        ('DecodeRandomResizedCrop', default_collate, 'SelfSupDataPreprocessor'),
        ('DrawRandomResizedCrop', collate_encoded, 'DecodeDataPreprocessor'),
    ):
        steps, samples = pipeline(step, size, **settings), []
        for seed, data in enumerate(files):
            np.random.seed(seed)
            samples.append(steps(dict(img_path=f'{seed}.jpg', img_bytes=data)))
        batch = collate(samples)
        if device.type == 'cuda':
            batch = pin_memory(batch)  # as the data loader does where a config says so
        inputs = preprocessor(kind, device)(batch, training=True)['inputs']
        assert inputs.device.type == device.type and inputs.dtype == torch.float32
        made.append(inputs.cpu() * 127.5 + 127.5)
    return made[0], made[1]


# nvJPEG rounds and enlarges colours otherwise than libjpeg, which is allowed 2 grey levels on a GPU.
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize(('size', 'least', 'most'), [(224, 0.0, 0.3), (40, 0.05, 1.0)])
def test_pixels_are_those_of_the_worker(device, interpolation, size, least, most):
    """Crops for 40 are decoded at 1/2 or 1/4 by the worker, and whole here."""
    files = [encoded(photo(375, 500, seed), quality=90) for seed in range(8)]
    told, got = batches(files, size, device, interpolation=interpolation)
    mean = (told - got).abs().mean((1, 2, 3))
    assert mean.min() >= least
    assert mean.max() < (most if device.type == 'cpu' else 2.0)


def test_kinds_of_jpeg(device):
    told, got = batches([encoded(photo(203, 270), quality=90, **kind) for kind in KINDS.values()], 64, device)
    mean = (told - got).abs().mean((1, 2, 3))
    assert mean.max() < (1.0 if device.type == 'cpu' else 2.0), dict(zip(KINDS, mean.tolist(), strict=True))


def test_unusual_files_among_others(device):
    """PNG, CMYK, turned images and others are the worker's, to the bit, and stay in their places."""
    files = [make(seed) for seed, (_, make) in enumerate(UNUSUAL.values())]
    told, got = batches(files, 32, device)
    mean = (told - got).abs().mean((1, 2, 3))
    by_device = {'plain', 'progressive', 'grey', 'bytes behind the end'}
    for name, off in zip(UNUSUAL, mean.tolist(), strict=True):
        assert off < (1.0 if device.type == 'cpu' else 3.0) if name in by_device else off < 1e-3, name


@pytest.mark.parametrize('kind', DAMAGE)
def test_damage_is_never_trained(device, kind):
    """By the worker or here, every one of them is found, though the crop be elsewhere."""
    files = [encode(picture(0)), DAMAGE[kind][1](0), encode(picture(2))]
    steps = pipeline('DrawRandomResizedCrop', 16, crop_ratio_range=(0.1, 0.1))
    with pytest.raises(UnreadableImage, match=r"^image '1\.x' cannot be read: "):
        samples = [steps(dict(img_path=f'{i}.x', img_bytes=data)) for i, data in enumerate(files)]
        preprocessor('DecodeDataPreprocessor', device)(collate_encoded(samples), training=True)


def test_memory_in_use_is_not_written_over(device):
    """Batches are decoded while the device is still busy with what was freed in between."""
    files = [encoded(photo(375, 500, seed), quality=90) for seed in range(4)]
    steps, decode = pipeline('DrawRandomResizedCrop', 64), preprocessor('DecodeDataPreprocessor', device)
    samples = []
    for seed, data in enumerate(files):
        np.random.seed(seed)
        samples.append(steps(dict(img_path=f'{seed}.jpg', img_bytes=data)))
    batch = collate_encoded(samples)
    told = decode(batch, training=True)['inputs']
    factor = torch.eye(2048 if device.type == 'cuda' else 32, device=device)
    for _ in range(10):
        busy = factor
        for _ in range(20):
            busy = busy @ factor  # each frees the one before
        got = decode(batch, training=True)['inputs']
        assert torch.equal(busy, factor)
        assert torch.equal(got, told)
