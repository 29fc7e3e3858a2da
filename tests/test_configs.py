"""Every config in configs/ builds, loads its pretrained weights, takes one training step and evaluates, at tiny size.

Sizes shrink, nothing else: the data sets, pipelines, schedules, hooks and heads are the config's own, on images
that this file makes in the layout that the config expects.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, RUNNERS

from nepa_mm.models.backbones.archs import ARCHS

ROOT = Path(__file__).parents[1]
LEAFS = sorted(p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)
WIDTH = 16


def test_there_are_configs_for_every_use():
    assert {p.parent.name for p in LEAFS} >= {'pretrain', 'classification', 'segmentation', 'demo'}


def make_image(path: Path, size=(48, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(len(str(path))).integers(0, 256, (*size, 3), dtype=np.uint8))


def make_label(path: Path, values, size=(48, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.resize(np.repeat(np.array(values, dtype=np.uint8), 8), size[1])
    cv2.imwrite(str(path), np.tile(label, (size[0], 1)))


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """A folder to run in, whose data/ holds a few images in each layout that the configs name."""
    folder = tmp_path_factory.mktemp('configs')
    for i in range(4):
        for split in ('train', 'val'):
            make_image(folder / f'data/imagenet/{split}/n0{i % 2}/{i}.jpg')
            make_image(folder / f'data/camvid/images/{split}/{i}.jpg')
            make_label(folder / f'data/camvid/annotations/{split}/{i}.png', [0, 5, 10, 255])
            make_image(folder / f'data/demo_scenes/classification/{split}/class{i % 2}/{i}.jpg', (128, 128))
        for split in ('training', 'validation'):
            make_image(folder / f'data/ade/ADEChallengeData2016/images/{split}/{i}.jpg')
            make_label(folder / f'data/ade/ADEChallengeData2016/annotations/{split}/{i}.png', [0, 1, 75, 150])
            make_image(folder / f'data/my_dataset/images/{split}/{i}.jpg')
            make_label(folder / f'data/my_dataset/annotations/{split}/{i}.png', [0, 1, 2, 3])
            make_image(folder / f'data/demo_scenes/images/{split}/{i}.jpg', (128, 128))
            make_label(folder / f'data/demo_scenes/annotations/{split}/{i}.png', [0, 1, 7, 13], (128, 128))
        make_image(folder / f'data/images/deep/er/{i}.jpg')
        make_image(folder / f'data/photos/{i}.jpg')
    return folder


def shrink(cfg: Config) -> None:
    model, backbone = cfg.model, cfg.model.backbone
    depth = (ARCHS[backbone.arch] if isinstance(backbone.arch, str) else backbone.arch)['num_layers']
    backbone.arch = dict(embed_dims=WIDTH, num_layers=depth, num_heads=2, feedforward_channels=2 * WIDTH)
    if 'neck' in model:
        model.neck['in_channels' if 'in_channels' in model.neck else 'input_features'] = WIDTH
    for name in ('head', 'decode_head', 'auxiliary_head'):
        head = model.get(name) or {}
        if 'in_channels' in head:
            head.in_channels = [WIDTH] * 4 if isinstance(head.in_channels, list) else WIDTH
        if 'channels' in head:
            head.channels = 8
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name):
            cfg[name].update(num_workers=0, persistent_workers=False, pin_memory=False)
            cfg[name].batch_size = min(2, cfg[name].batch_size)
    has_val = cfg.get('val_dataloader') is not None
    if has_val:
        cfg.val_dataloader.dataset.indices = 1
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1 if has_val else 10**9)
    cfg.log_processor = dict(by_epoch=False)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)


def source_of(checkpoint: str) -> Config:
    """The pretraining config whose last checkpoint is at this path."""
    run, name = Path(checkpoint).parts[-2:]
    # The demo names its runs after its stages.
    matches = [p for p in LEAFS if p.stem == run or (run == 'pretrain' and p.parent.name == 'demo')]
    matches = [p for p in matches if 'upernet' not in p.stem and 'linear' not in p.stem]
    assert len(matches) == 1, f'{checkpoint} is the run of {matches}'
    cfg = Config.fromfile(matches[0])
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    assert name == f'{"epoch" if "max_epochs" in cfg.train_cfg else "iter"}_{length}.pth'
    return cfg


def save_what_it_starts_from(backbone, folder: Path) -> dict | None:
    """The checkpoint that init_cfg names: random weights of *its own* config's backbone, shrunk; returns those."""
    init_cfg = backbone.get('init_cfg')
    if init_cfg is None:
        return None
    source = source_of(init_cfg.checkpoint)
    shrink(source)
    weights = MODELS.build(source.model.backbone).state_dict()
    path = folder / init_cfg.checkpoint
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict={'backbone.' + k: v for k, v in weights.items()}, meta={}), path)
    return weights


@pytest.mark.parametrize('path', LEAFS, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_config(path, data, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    cfg = Config.fromfile(path)
    assert cfg.custom_imports.imports == ['nepa_mm']
    assert cfg.auto_scale_lr.base_batch_size > 0
    shrink(cfg)
    start = save_what_it_starts_from(cfg.model.backbone, data)
    cfg.work_dir, cfg.launcher = str(tmp_path), 'none'
    runner = RUNNERS.build(cfg)

    seen = {}
    weights_before_training = runner.model.init_weights

    def init_weights():
        weights_before_training()
        seen.update({k: v.clone() for k, v in runner.model.state_dict().items()})

    runner.model.init_weights = init_weights
    runner.train()

    if start is not None:
        assert all(torch.equal(seen['backbone.' + k], v) for k, v in start.items()), 'starts from the checkpoint'
    after = runner.model.state_dict()
    moved = {k for k, v in after.items() if not torch.equal(v, seen[k])}
    frozen = {n for n, p in runner.model.named_parameters() if not p.requires_grad}
    assert moved and not moved & frozen
    assert all(torch.isfinite(v).all() for v in after.values() if v.is_floating_point())
    history = runner.message_hub.log_scalars
    assert np.isfinite(history['train/loss'].current())
    if cfg.get('val_dataloader'):
        metric = 'val/mIoU' if cfg.default_scope == 'mmseg' else 'val/accuracy/top1'
        assert 0 <= history[metric].current() <= 100
    assert (tmp_path / 'iter_1.pth').is_file()
