"""A linear probe by epochs of forward passes, as the linear leafs train, beside one fit on features that are kept."""

import argparse
import logging
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from torch import Tensor, nn

from nepa_mm.apis.configs import find_config
from nepa_mm.evaluation import (
    FeatureCache,
    FeatureSet,
    backbone_of,
    extract_features,
    hash_samples,
    hash_weights,
    probe_item,
    probe_loader,
    probing,
)
from nepa_mm.models.backbones.archs import ARCHS

from .report import Report

HELP = """Time a linear probe of frozen features: epochs of forward passes by the linear leaf's recipe, against features
computed once and kept on disk; both on the same made images, with both accuracies."""
# The recipe: neck, head, optimizer, warm-up and number of epochs.
LEAF = 'nepa_base-p14_linear_8xb128-bf16-coslr-90e_in1k'
# "Seconds instead of epochs", and the same accuracy: ours, for a probe of this size.
NOISE = 40.0
FIT_SECONDS, TIME_RATIO, ACCURACY_LOSS = 10.0, 0.1, -1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``benchmark.py probing``."""
    parser.add_argument('--arch', default='tiny', choices=list(ARCHS), help='width of the frozen network')
    parser.add_argument('--num-layers', type=int, default=4, help='layers')
    parser.add_argument('--patch-size', type=int, default=8, help='side of a patch in pixels')
    parser.add_argument('--img-size', type=int, default=32, help='side of the square image in pixels')
    parser.add_argument('--images', type=int, default=600, help='to learn from, and as many to score on')
    parser.add_argument('--classes', type=int, default=10, help='of images')
    parser.add_argument('--epochs', type=int, help="of forward passes (default: the leaf's 90)")
    parser.add_argument('--batch-size', type=int, default=64, help='of both')
    parser.add_argument('--threads', type=int, default=2, help='of torch')
    parser.add_argument('--rounds', type=int, default=3, help='timed rounds of the kept features')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'], help='where')


class MadeImages(torch.utils.data.Dataset):
    """Gratings in noise, in memory: the class is the angle; frequency, phase, colour and noise vary.

    Args:
        number (int): Of images.
        classes (int): Of angles.
        size (int): Side in pixels.
        seed (int): Of the draw.
    """

    def __init__(self, number: int, classes: int, size: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.rand(number, *shape, generator=generator)

        self.metainfo = dict(classes=tuple(f'angle {i}' for i in range(classes)))
        self.labels = torch.arange(number) % classes
        angle = math.pi * self.labels[:, None, None] / classes
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing='ij')
        wave = 0.6 + 0.1 * draw(1, 1)
        grating = torch.sin(wave * (x * angle.cos() + y * angle.sin()) + 2 * math.pi * draw(1, 1))
        contrast = 40 + 80 * draw(1, 1, 1)
        noise = torch.randn(number, 3, size, size, generator=generator)
        self.images = (127.5 + contrast * grating[:, None] + NOISE * noise).clamp(0, 255).byte()
        self.seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def get_data_info(self, index: int) -> dict:
        """The record of an image, by which kept features are told apart."""
        return dict(seed=self.seed, shape=tuple(self.images.shape), gt_label=int(self.labels[index]), sample_idx=index)

    def __getitem__(self, index: int) -> dict:
        from mmpretrain.structures import DataSample

        return dict(inputs=self.images[index], data_samples=DataSample().set_gt_label(int(self.labels[index])))


def run(args: argparse.Namespace) -> Report:
    """Measure.

    Args:
        args (argparse.Namespace): See :func:`add_arguments`.

    Returns:
        Report: Seconds and accuracies of both.
    """
    torch.set_num_threads(args.threads)
    MMLogger.get_current_instance().setLevel(logging.WARNING)  # what models say when they are built
    cfg, model = build(args)
    train, val = (MadeImages(args.images, args.classes, args.img_size, seed) for seed in (0, 1))
    report = Report('probing', command=' '.join(['python tools/analysis/benchmark.py probing', *sys.argv[2:]]))
    report.settings = {k: v for k, v in vars(args).items() if k not in ('sub', 'out_dir')}

    seconds, trained = train_by_epochs(cfg, model, train, val, args.batch_size)
    once: list[float] = []
    again: list[float] = []
    kept = 0.0
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for timed in (once, again):
                start = time.perf_counter()
                kept = probe_kept(model, train, val, args.batch_size, folder)
                timed.append(time.perf_counter() - start)
    total = sum(seconds)
    report.add('one epoch', seconds, 's', note=f'forward passes of {len(train)} images, and steps of the head')
    report.add('all epochs', [total], 's', note=f'{len(seconds)} epochs')
    report.add('features once, and fit', once, 's', note=f'{len(train)} + {len(val)} forward passes')
    report.add('fit on kept features', again, 's', ('<=', FIT_SECONDS), note='7 fits: the weight decay is chosen')
    report.add('once and fit / all epochs', [t / total for t in once], 'ratio', ('<=', TIME_RATIO), limit='all epochs')
    report.add('accuracy of epochs', [trained], '%')
    report.add('accuracy of kept features', [kept], '%')
    report.add('accuracy gained', [kept - trained], 'points', ('>=', ACCURACY_LOSS), note='kept features less epochs')
    return report


def build(args: argparse.Namespace) -> tuple[Config, nn.Module]:
    """The linear leaf's config at the size that is asked for, and its model with random weights.

    The learning rate is the leaf's own. Scaled to a small batch, a few hundred images would see steps so few and so
    short that the head does not arrive.
    """
    cfg = Config.fromfile(find_config(LEAF))
    arch = dict(ARCHS[args.arch])
    arch['num_layers'] = args.num_layers
    model = cfg.model
    model.backbone.update(arch=arch, patch_size=args.patch_size, frozen_stages=arch['num_layers'], init_cfg=None)
    # LayerScale of 1e-5 would leave of a network that has not learned no more than its patch embedding.
    model.backbone.layer_scale_init = 1.0
    model.neck.input_features = model.head.in_channels = arch['embed_dims']
    model.head.num_classes = model.data_preprocessor.num_classes = args.classes
    epochs = args.epochs or cfg.train_cfg.max_epochs
    for schedule in cfg.param_scheduler:
        schedule.warmup *= epochs / schedule.end
        schedule.end = epochs
    cfg.train_cfg.max_epochs = epochs
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = MODELS.build(model)
        network.init_weights()
    return cfg, network.to(args.device)


def train_by_epochs(
    cfg: Config, model: Any, train: MadeImages, val: MadeImages, batch_size: int
) -> tuple[list[float], float]:
    """Train neck and head by the config's optimizer and schedule, the bare loop.

    Args:
        cfg (Config): From :func:`build`.
        model (nn.Module): From :func:`build`.
        train (MadeImages): To learn from.
        val (MadeImages): To score on.
        batch_size (int): Images of a step.

    Returns:
        tuple[list[float], float]: Seconds of each epoch, and the accuracy after the last in percent.
    """
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    steps = len(train) // batch_size
    schedules = [
        PARAM_SCHEDULERS.build(
            dict(type=s.type, warmup=s.warmup * steps, end=s.end * steps, by_epoch=False),
            default_args=dict(optimizer=wrapper),
        )
        for s in cfg.param_scheduler
    ]
    generator = torch.Generator().manual_seed(0)
    seconds = []
    for _ in range(cfg.train_cfg.max_epochs):
        start = time.perf_counter()
        model.train()
        order = torch.randperm(len(train), generator=generator)
        for chosen in order[: steps * batch_size].split(batch_size):
            images = model.data_preprocessor(dict(inputs=train.images[chosen]), training=False)['inputs']
            with wrapper.optim_context(model):
                loss = F.cross_entropy(_logits(model, images), train.labels[chosen].to(images.device))
            wrapper.update_params(loss)
            for schedule in schedules:
                schedule.step()
        seconds.append(time.perf_counter() - start)
    model.eval()
    hits = 0
    with torch.no_grad():
        for images, labels in zip(val.images.split(batch_size), val.labels.split(batch_size), strict=True):
            images = model.data_preprocessor(dict(inputs=images), training=False)['inputs']
            hits += int((_logits(model, images).argmax(dim=1).cpu() == labels).sum())
    return seconds, 100 * hits / len(val)


def _logits(model: Any, images: Tensor) -> Tensor:
    return model.head(model.extract_feat(images)).float()


def probe_kept(model: Any, train: MadeImages, val: MadeImages, batch_size: int, folder: str | Path) -> float:
    """Fit a linear probe on features of the last layer, which are kept in a folder and read from it if they are there.

    Args:
        model (nn.Module): From :func:`build`.
        train (MadeImages): To learn from.
        val (MadeImages): To score on.
        batch_size (int): Images of a forward pass.
        folder (str | Path): Where features are kept.

    Returns:
        float: Accuracy in percent.
    """
    backbone = backbone_of(model)
    item = (backbone.num_layers - 1, 'avg')
    facts = dict(benchmark='probing', weights=hash_weights(backbone))
    kept = []
    for name, images in (('train', train), ('val', val)):
        cache = FeatureCache(folder, name, dict(facts, samples=hash_samples(images)))
        if cache.missing([item]):
            with cache.writing([item], (len(images), backbone.embed_dims), 'float32') as arrays, probing(backbone):
                loader = probe_loader(images, batch_size, num_workers=0)
                labels = extract_features(backbone, model.data_preprocessor, loader, [item], arrays)
            cache.write_labels(labels)
        kept.append(FeatureSet({item: cache.read(item)}, cache.read_labels()))
    device = backbone.cls_token.device
    result = probe_item(kept[0], kept[1], item, len(train.metainfo['classes']), linear=True, device=device)
    assert result.linear is not None
    return result.linear[0]
