"""Images per second that one core makes ready for training, beside the hosts' pipelines and bare decoding."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose, LoadImageFromFile
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from torchvision import transforms

from nepa_mm.datasets import collate_encoded, encoded_image

from .photos import encoded, photo
from .report import Report
from .timing import interleave, ratios

HELP = """Time the pipelines of pretraining, fine-tuning and segmentation on one core: ours, the hosts' and, for
pretraining, the release's and the bare decoding of the same files by OpenCV, in turns. Seconds are processor time, but
those of --device."""
# Of the issue.
RATE, OVER_PILLOW, OVER_HOST = 1200.0, 2.6, 1.5
USES = ('pretrain', 'finetune', 'ade20k')
SUFFIXES = ('.jpg', '.jpeg')
ENCODED = 'ours, left encoded for the device'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``benchmark.py data``."""
    parser.add_argument('--folder', type=Path, help='JPEG files to read instead of made ones')
    parser.add_argument('--size', type=int, nargs=2, default=(500, 375), help='width and height of the made ones')
    parser.add_argument('--quality', type=int, default=75, help='JPEG quality of the made ones')
    parser.add_argument('--images', type=int, default=32, help='images of a round')
    parser.add_argument('--crop', type=int, default=224, help='side of the crops of pretraining and fine-tuning')
    parser.add_argument('--seg-crop', type=int, default=512, help='side of the crops of segmentation')
    parser.add_argument('--uses', nargs='+', default=USES, choices=USES, help='which to measure')
    parser.add_argument('--device', help="where to time the decoding of what the workers leave encoded, such as 'cuda'")
    parser.add_argument('--rounds', type=int, default=9, help='timed rounds')
    parser.add_argument('--warmup', type=int, default=2, help='rounds before, not timed')


def run(args: argparse.Namespace) -> Report:
    """Measure.

    Args:
        args (argparse.Namespace): See :func:`add_arguments`.

    Returns:
        Report: Images per second of each pipeline, and ours over the others'.

    Raises:
        ValueError: ``folder`` holds no JPEG.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    report = Report('data', command=' '.join(['python tools/analysis/benchmark.py data', *sys.argv[2:]]))
    with TemporaryDirectory() as folder:
        files = _files(args, Path(folder))
        decoder = 'OpenCV' if encoded_image.simplejpeg is None else f'simplejpeg {encoded_image.simplejpeg.__version__}'
        report.settings = dict(
            images=len(files),
            source='made' if args.folder is None else 'files of the folder',
            kilobytes=round(np.mean([file.stat().st_size for file in files]) / 1000),
            crop=args.crop,
            seg_crop=args.seg_crop,
            decoder=decoder,
        )
        if 'pretrain' in args.uses:
            _add_pretraining(report, args, files)
        if 'finetune' in args.uses:
            host = _batch(_composed('mmpretrain', *_host_crop(args.crop, 'pillow', 'bicubic'), *HOST_TAIL), files)
            ours = _batch(_composed('mmpretrain', *_our_crop(args.crop, 'bicubic'), *OUR_TAIL), files)
            _add_pair(report, args, len(files), 'fine-tuning', host, ours)
        if 'ade20k' in args.uses:
            labels = _labels(files, Path(folder))
            pair = (_segmentation(steps, files, labels) for steps in _seg_steps(args.seg_crop))
            _add_pair(report, args, len(files), 'segmentation', *pair)
    return report


# What follows the crop of the release's fine-tuning: as mmpretrain has it, and as our configs.
HOST_TAIL = (
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[128] * 3, interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[127.5] * 3,
        fill_std=[127.5] * 3,
    ),
    dict(type='PackInputs'),
)
OUR_TAIL = (dict(type='TimmRandAugment'), dict(type='TimmRandomErasing'), dict(type='PackInputs'))


def _host_crop(size: int, backend: str, interpolation: str) -> list:
    return [
        LoadImageFromFile(),  # mmcv's own, whose name ours has in the registries
        dict(type='RandomResizedCrop', scale=size, backend=backend, interpolation=interpolation),
        dict(type='RandomFlip', prob=0.5),
    ]


def _our_crop(size: int, interpolation: str) -> list[dict]:
    crop = dict(type='DecodeRandomResizedCrop', scale=size, interpolation=interpolation)
    return [dict(type='LoadEncodedImage'), crop]


def _seg_steps(crop: int) -> tuple[list, list]:
    """The pipelines for ADE20K: mmseg's, and ours."""
    from mmseg.datasets.transforms.loading import LoadAnnotations

    resize = dict(scale=(4 * crop, crop), ratio_range=(0.5, 2.0))
    cut = dict(crop_size=(crop, crop), cat_max_ratio=0.75)
    host = [
        LoadImageFromFile(),
        LoadAnnotations(),
        dict(type='RandomResize', keep_ratio=True, **resize),
        dict(type='RandomCrop', **cut),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]
    ours = [
        dict(type='LoadEncodedImage'),
        dict(type='LoadAnnotations'),
        dict(type='DecodeSegCrop', **resize, **cut),
        dict(type='TablePhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]
    return host, ours


def _add_pretraining(report: Report, args: argparse.Namespace, files: Sequence[Path]) -> None:
    data = [np.frombuffer(file.read_bytes(), np.uint8) for file in files]
    pack = dict(type='PackInputs')
    release = transforms.Compose(
        [
            transforms.RandomResizedCrop(args.crop),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    functions: dict[str, Callable[[], object]] = {
        'bare decoding, OpenCV': lambda: [cv2.imdecode(one, cv2.IMREAD_COLOR) for one in data],
        'PIL and torchvision, as the release': lambda: torch.stack(
            [release(Image.open(file).convert('RGB')) for file in files]
        ),
    }
    for backend in ('pillow', 'cv2'):
        steps = _composed('mmpretrain', *_host_crop(args.crop, backend, 'bilinear'), pack)
        functions[f'mmpretrain, {backend}'] = _batch(steps, files)
    functions['ours'] = _batch(_composed('mmpretrain', *_our_crop(args.crop, 'bilinear'), pack), files)
    draw = dict(type='DrawRandomResizedCrop', scale=args.crop)
    pack_crop = dict(type='PackInputs', algorithm_keys=['crop'])
    left = _composed('mmpretrain', dict(type='LoadEncodedImage'), draw, pack_crop)
    functions[ENCODED] = collated = _batch(left, files, collate_encoded)
    seconds = interleave(functions, args.rounds, args.warmup, clock=time.process_time)
    for name, times in seconds.items():
        target = ('>=', RATE) if name == 'ours' else None
        limit = 'bare decoding, OpenCV' if name == 'ours' else ''
        report.add(f'pretraining: {name}', [len(files) / s for s in times], 'img/s', target, limit)
    for name, target in (('mmpretrain, pillow', ('>=', OVER_PILLOW)), ('bare decoding, OpenCV', None)):
        quotients = ratios(seconds[name], seconds['ours'])
        report.add(f'pretraining: ours over {name}', quotients, 'ratio', target)
    bound = ratios(seconds['mmpretrain, pillow'], seconds['bare decoding, OpenCV'])
    report.add('pretraining: bare decoding over mmpretrain, pillow', bound, 'ratio')
    if args.device is not None:
        decode = _decoding(torch.device(args.device), collated())
        times = interleave(dict(device=decode), args.rounds, args.warmup)['device']
        report.add(f'pretraining: decoded on {args.device}', [len(files) / s for s in times], 'img/s')


def _decoding(device: torch.device, batch: dict) -> Callable[[], object]:
    """Makes an encoded batch ready on a device."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        settings = dict(mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)
        preprocessor = MODELS.build(dict(type='DecodeDataPreprocessor', **settings)).to(device)
    return lambda: preprocessor(dict(batch), training=True)


def _add_pair(report: Report, args: argparse.Namespace, count: int, use: str, host: Callable, ours: Callable) -> None:
    seconds = interleave(dict(host=host, ours=ours), args.rounds, args.warmup, clock=time.process_time)
    for name, times in seconds.items():
        report.add(f'{use}: {"ours" if name == "ours" else "the host"}', [count / s for s in times], 'img/s')
    quotients = ratios(seconds['host'], seconds['ours'])
    report.add(f'{use}: ours over the host', quotients, 'ratio', ('>=', OVER_HOST))


def _composed(scope: str, *steps: object) -> Compose:
    with DefaultScope.overwrite_default_scope(scope):
        return Compose(list(steps))


def _batch(steps: Compose, files: Sequence[Path], collate: Callable = default_collate) -> Callable[[], dict]:
    """Makes a batch of all images, from the files on."""
    return lambda: collate([steps(dict(img_path=str(file), gt_label=0)) for file in files])


def _segmentation(steps: Sequence, files: Sequence[Path], labels: Sequence[Path]) -> Callable[[], object]:
    """Makes a list of all images, as mmseg's batches are."""
    common = dict(reduce_zero_label=True, label_map=None)
    composed = _composed('mmseg', *steps)

    def load(pair: tuple[Path, Path]) -> dict:
        return composed(dict(img_path=str(pair[0]), seg_map_path=str(pair[1]), seg_fields=[], **common))

    return lambda: pseudo_collate([load(pair) for pair in zip(files, labels, strict=True)])


def _files(args: argparse.Namespace, folder: Path) -> list[Path]:
    """The files of the folder given, spread over it, or made ones."""
    if args.folder is not None:
        found = sorted(file for file in args.folder.rglob('*') if file.suffix.lower() in SUFFIXES)
        if not found:
            raise ValueError(f'--folder {args.folder} holds no files that end in {" or ".join(SUFFIXES)}')
        return found[:: max(1, len(found) // args.images)][: args.images]
    make = partial(photo, args.size[1], args.size[0])
    files = [folder / f'{number}.jpg' for number in range(args.images)]
    for number, file in enumerate(files):
        file.write_bytes(encoded(make(number), quality=args.quality))
    return files


def _labels(files: Sequence[Path], folder: Path) -> list[Path]:
    """Label maps of the images' sizes, with shapes of a dozen classes."""
    labels = [folder / f'label_{number}.png' for number in range(len(files))]
    for number, (file, label) in enumerate(zip(files, labels, strict=True)):
        width, height = Image.open(file).size
        classes = photo(height, width, number)[..., 0] // 24
        Image.fromarray(cv2.medianBlur(classes, 31)).save(label)
    return labels
