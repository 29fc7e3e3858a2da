"""DecodeDataPreprocessor and what leads to it: draws, batches, damage, a missing decoder, and whole runs."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, RUNNERS
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from nepa_mm.benchmark.photos import encoded, photo
from nepa_mm.datasets import BadImages, TooManyBadImagesError, UnreadableImage, collate_encoded, encoded_batch
from nepa_mm.datasets.jpeg_header import read_jpeg_header
from nepa_mm.models.utils.decode_data_preprocessor import decode_jpegs
from tests.damaged import DAMAGE, UNUSUAL, encode, picture
from tests.test_gpu.test_jpeg_decoding import pipeline, preprocessor

CPU = torch.device('cpu')
RUN = itertools.count()
# Decoders do not tell, and fill up.
MISSING = DAMAGE['cut short, with an end'][1]


def drawn(files: list[bytes], size: int = 16, **settings) -> list[dict]:
    steps = pipeline('DrawRandomResizedCrop', size, **settings)
    return [steps(dict(img_path=f'{i}.jpg', img_bytes=data)) for i, data in enumerate(files)]


@pytest.mark.parametrize('shape', [(150, 200), (40, 200), (133, 30)])
def test_draws_are_those_of_the_worker(shape):
    """The latter two take the way out after ten attempts, too."""
    data = encoded(photo(*shape))
    settings = dict(crop_ratio_range=(0.2, 0.9), flip_prob=0.3)
    told, ours = (pipeline(f'{kind}RandomResizedCrop', 24, **settings) for kind in ('Decode', 'Draw'))
    for seed in range(30):
        ends = []
        for steps in (told, ours):
            np.random.seed(seed)
            ends.append((steps(dict(img_path='a.jpg', img_bytes=data)), np.random.random_sample()))
        (first, after), (second, after_ours) = ends
        assert after == after_ours
        assert second['inputs'].dtype == torch.uint8 and bytes(second['inputs'].numpy()) == data
        sample = second['data_samples']
        for key in ('flip', 'flip_direction', 'ori_shape', 'img_shape', 'img_path'):
            assert sample.get(key) == first['data_samples'].get(key), key
        assert (sample.crop.flip, sample.crop.size, sample.crop.shape) == (sample.flip, (24, 24), shape)


def test_what_is_left_to_the_worker():
    rgb = photo(48, 64)
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded(rgb)
    frame = read_jpeg_header(plain).frame
    adobe = plain[:2] + b'\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00' + plain[2:]
    named = bytearray(plain)
    named[frame + 10 : frame + 19 : 3] = b'RGB'
    extended = bytearray(plain)
    extended[frame + 1] = 0xC1
    for data in (encoded(rgb, 'PNG'), encoded(rgb, mode='CMYK'), encoded(rgb, exif=exif), adobe, extended):
        (sample,) = drawn([bytes(data)])
        assert sample['inputs'].shape == (3, 16, 16) and 'crop' not in sample['data_samples']
    assert not read_jpeg_header(bytes(named)).for_hardware
    for data in (plain, encoded(rgb, mode='L'), encoded(rgb, progressive=True)):
        assert drawn([data])[0]['inputs'].ndim == 1


def test_a_batch_of_pixels_is_that_of_mmpretrain():
    """So are all batches of evaluation, and one without a JPEG."""
    samples = drawn([encode(picture(seed), 'PNG') for seed in range(3)])
    batch = collate_encoded(samples)
    assert torch.equal(batch['inputs'], default_collate(samples)['inputs'])
    told, got = (
        preprocessor(kind, CPU)(batch)['inputs'] for kind in ('SelfSupDataPreprocessor', 'DecodeDataPreprocessor')
    )
    assert torch.equal(got, told)


def test_batches_take_few_tensors_and_are_not_changed():
    files = [encode(picture(seed), *kind) for seed, kind in enumerate([[], ['PNG'], [], ['PNG'], []])]
    batch = collate_encoded(drawn(files))
    inputs = batch['inputs']
    assert len(inputs) == 5 and inputs.places == [0, 2, 4] and inputs.pixels.shape == (2, 3, 16, 16)
    assert bytes(inputs.data.numpy()) == files[0] + files[2] + files[4]
    assert inputs.sources == ['0.jpg', '2.jpg', '4.jpg'] and len(batch['data_samples']) == 5
    decode = preprocessor('DecodeDataPreprocessor', CPU)
    first = decode(batch)['inputs']
    assert torch.equal(decode(batch)['inputs'], first) and batch['inputs'] is inputs


def test_only_pixels_are_pinned(monkeypatch):
    batch = collate_encoded(drawn([encode(picture(0)), encode(picture(1), 'PNG')]))
    pinned = []
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self, *args: pinned.append(self.shape) or self)
    assert pin_memory(batch)['inputs'] is batch['inputs']
    assert pinned == [(1, 3, 16, 16)]


def test_large_images_are_decoded_in_parts(monkeypatch):
    batch = collate_encoded(drawn([encoded(photo(60, 80, seed)) for seed in range(5)]))
    decode = preprocessor('DecodeDataPreprocessor', CPU)
    told = decode(batch)['inputs']
    calls = []
    monkeypatch.setattr(decode, '_decode_files', lambda files: calls.append(len(files)) or decode_jpegs(files, CPU))
    monkeypatch.setattr(encoded_batch, 'AT_ONCE', 2 * 60 * 80)
    assert torch.equal(decode(batch)['inputs'], told)
    assert calls == [2, 2, 1]


def test_a_crop_must_come_along():
    samples = drawn([encode(picture(0))])
    del samples[0]['data_samples'].crop
    with pytest.raises(ValueError, match=r"algorithm_keys=\['crop'\]"):
        collate_encoded(samples)


# ---------------------------------------------------------------------------------------------------- damage


def test_damaged_images_are_noted_and_replaced(tmp_path):
    """Each by the next of the batch that can be read, also where that is one of the worker's, or the first."""
    files = [encode(picture(0)), MISSING(1), encode(picture(2), 'PNG'), MISSING(3), MISSING(4)]
    decode = preprocessor('DecodeDataPreprocessor', CPU)
    batch = collate_encoded(drawn(files))
    with pytest.raises(UnreadableImage, match=r"image '1\.jpg' cannot be read: a part of its data is missing"):
        decode(batch)
    decode.bad_images = BadImages(tmp_path / 'bad.jsonl', max_share=0.3, total=10)
    got = decode(batch)['inputs']
    assert decode.bad_images.known == {f'{i}.jpg': 'a part of its data is missing' for i in (1, 3, 4)}
    assert [torch.equal(got[i], got[j]) for i, j in ((1, 2), (3, 0), (4, 0))] == [True] * 3
    assert not torch.equal(got[0], got[2])
    decode(batch)  # again, as a second epoch
    assert (tmp_path / 'bad.jsonl').read_text().count('.jpg') == 3

    decode.bad_images = BadImages(tmp_path / 'few.jsonl', max_share=0.2, total=10)
    with pytest.raises(TooManyBadImagesError, match='^3 of 10'):
        decode(batch)
    decode.bad_images = BadImages(tmp_path / 'all.jsonl', max_share=1, total=10)
    with pytest.raises(TooManyBadImagesError, match='none of the 2 images of a batch'):
        decode(collate_encoded(drawn([MISSING(0), MISSING(1)])))


def test_an_image_that_ends_in_grey_is_no_damage():
    rgb = np.full((48, 64, 3), 128, np.uint8)
    got = preprocessor('DecodeDataPreprocessor', CPU)(collate_encoded(drawn([encode(rgb)])))['inputs']
    assert (got * 127.5 + 127.5 - 128).abs().max() <= 1


def test_what_the_device_cannot_decode_is_read_on_the_cpu(monkeypatch, logged):
    files = [encoded(photo(60, 80, seed)) for seed in range(7)]
    batch, decode = collate_encoded(drawn(files)), preprocessor('DecodeDataPreprocessor', CPU)
    told = decode(batch)['inputs']
    original, calls = torchvision.io.decode_jpeg, []

    def stumbling(given, **kwargs):
        calls.append(len(given))
        if any(bytes(file.numpy()) == files[5] for file in given):
            raise RuntimeError('Failed to decode jpeg stream: 4')
        return original(given, **kwargs)

    monkeypatch.setattr(torchvision.io, 'decode_jpeg', stumbling)
    assert torch.equal(decode(batch)['inputs'], told)
    assert calls == [7, 3, 4, 2, 2, 1, 1]
    decode(batch)
    assert [text for text in logged if text.startswith('1 of 7 JPEG files of a batch cannot be decoded on cpu')] == [
        text for text in logged if 'Said once' in text
    ]
    assert sum('Said once' in text for text in logged) == 1


def test_too_little_memory_is_no_fault_of_the_files(monkeypatch):
    batch, decode = collate_encoded(drawn([encode(picture(0))])), preprocessor('DecodeDataPreprocessor', CPU)

    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(torchvision.io, 'decode_jpeg', full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        decode(batch)


@pytest.mark.parametrize(
    ('on', 'error'),
    [
        ('cuda', RuntimeError('decode_jpegs_cuda: torchvision not compiled with nvJPEG support')),
        ('cpu', TypeError("decode_jpeg() Expected a value of type 'Tensor' for argument 'input'")),
    ],
)
def test_a_missing_decoder_is_told_at_once(monkeypatch, on, error):
    original = torchvision.io.decode_jpeg

    def lacking(files, device, **kwargs):
        if torch.device(device).type == on:
            raise error
        return original(files, device=device, **kwargs)

    monkeypatch.setattr(torchvision.io, 'decode_jpeg', lacking)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: on == 'cuda')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')  # where mmengine's logger looks next
    with pytest.raises(RuntimeError, match=rf"(?s)list of JPEG files on '{on}': .*DecodeRandomResizedCrop") as told:
        preprocessor('DecodeDataPreprocessor', CPU)
    assert str(error) in str(told.value)
    monkeypatch.delattr(torchvision.io, 'decode_jpeg')
    with pytest.raises(RuntimeError, match='decode_jpeg'):
        preprocessor('DecodeDataPreprocessor', CPU)


# ---------------------------------------------------------------------------------------------------- runs


@HOOKS.register_module(force=True)
class KeepBatches(Hook):
    """Keeps the names, flips and boxes of every batch, and the loss."""

    def before_train(self, runner):
        self.seen, self.losses = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        samples = data_batch['data_samples']
        self.seen.append([(Path(s.img_path).name, s.flip, s.get('crop') and s.crop.box) for s in samples])
        self.losses.append(float(outputs['loss'].detach()))


def run(folder: Path, work_dir: Path, draw: bool = True, workers: int = 2, **settings):
    """Train on the folder's images; the run's last weights, and what its hook has kept."""
    crop = dict(scale=16, flip_prob=0.5, crop_ratio_range=(0.3, 1.0))
    steps = [
        dict(type='LoadEncodedImage'),
        dict(type='DrawRandomResizedCrop' if draw else 'DecodeRandomResizedCrop', **crop),
        dict(type='PackInputs', algorithm_keys=['crop']),
    ]
    kind = 'DecodeDataPreprocessor' if draw else 'SelfSupDataPreprocessor'
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16)
    cfg = dict(
        default_scope='mmpretrain',
        runner_type='NEPARunner',
        model=dict(
            type='NEPA',
            data_preprocessor=dict(type=kind, mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True),
            backbone=dict(type='NEPAViT', arch=arch, patch_size=8, layer_scale_init=0.1),
        ),
        train_dataloader=dict(
            batch_size=4,
            num_workers=workers,
            drop_last=True,
            collate_fn=dict(type='collate_encoded' if draw else 'default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(type='CustomDataset', data_root=str(folder), with_label=False, pipeline=steps),
        ),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        work_dir=str(work_dir),
        experiment_name=f'decoding_{next(RUN)}',
        randomness=dict(seed=0),
        custom_hooks=[dict(type='KeepBatches')],
    )
    cfg = Config({**cfg, **settings})
    runner = RUNNERS.build(cfg)
    runner.train()
    kept = next(hook for hook in runner.hooks if isinstance(hook, KeepBatches))
    return {name: value.clone() for name, value in runner.model.state_dict().items()}, kept


@pytest.fixture
def images(tmp_path) -> Path:
    """Twelve images, of which one is a PNG and one is turned."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for seed in range(10):
        (folder / f'{seed}.jpg').write_bytes(encoded(photo(48, 64, seed), quality=90))
    (folder / '10.png').write_bytes(encode(picture(10), 'PNG'))
    (folder / '11.jpg').write_bytes(UNUSUAL['turned'][1](5))
    return folder


def test_a_run_with_workers(images, tmp_path):
    """Two workers, none, and a run that is resumed end alike; beside it, one whose workers decode, with equal draws."""
    ends = [run(images, tmp_path / f'{workers}', workers=workers) for workers in (2, 0)]
    (two, kept), (none, _) = ends
    assert len(kept.losses) == 6 and np.isfinite(kept.losses).all()
    assert all(torch.equal(two[name], none[name]) for name in two)

    run(images, tmp_path / 'cut', train_cfg=dict(by_epoch=True, max_epochs=1))
    resumed, rest = run(images, tmp_path / 'cut', resume=True)
    assert len(rest.losses) == 3
    assert all(torch.equal(two[name], resumed[name]) for name in two)

    _, told = run(images, tmp_path / 'told', draw=False)
    assert [[one[:2] for one in batch] for batch in kept.seen] == [[one[:2] for one in b] for b in told.seen]
    boxes = [one[2] for batch in kept.seen for one in batch if one[0] not in ('10.png', '11.jpg')]
    assert len(boxes) == 20 == len(set(boxes)) and all(boxes)
    np.testing.assert_allclose(kept.losses, told.losses, atol=0.01)


def test_a_run_goes_on_without_damaged_images(images, tmp_path):
    """One is found by the workers, one here; each is counted once."""
    (images / 'cut.jpg').write_bytes(DAMAGE['cut short'][1](1))
    (images / 'missing.jpg').write_bytes(MISSING(2))
    (images / '12.jpg').write_bytes(encoded(photo(48, 64, 12)))
    (images / '13.jpg').write_bytes(encoded(photo(48, 64, 13)))
    hooks = dict(bad_data=dict(type='BadDataHook', max_bad_share=0.2, interval=1))
    _, kept = run(images, tmp_path / 'run', default_hooks=hooks)
    assert len(kept.losses) == 8 and np.isfinite(kept.losses).all()
    listed = (tmp_path / 'run/bad_images.txt').read_text().splitlines()
    assert [Path(line.split('\t')[0]).name for line in listed] == ['cut.jpg', 'missing.jpg']
    (images / 'cut.jpg').unlink()
    with pytest.raises(UnreadableImage, match=r'missing\.jpg'):
        run(images, tmp_path / 'strict')
