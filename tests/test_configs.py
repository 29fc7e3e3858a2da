"""Every config in configs/ builds, loads its pretrained weights, trains and evaluates, at tiny size.

Sizes shrink, nothing else: the data sets, pipelines, schedules, hooks and heads are the config's own, on images
that tests/layouts.py makes in the layout that the config expects.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, RUNNERS
from timm.layers import resample_patch_embed

from nepa_mm.checkpoints import read_checkpoint
from nepa_mm.models.backbones.archs import ARCHS
from tests.layouts import make_layouts

ROOT = Path(__file__).parents[1]
LEAFS = sorted(p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)
WIDTH = 16
# A warm-up starts at 0, so the second update is the first that moves a weight; the third ends what two accumulate.
STEPS = 3


def test_there_are_configs_for_every_use():
    assert {p.parent.name for p in LEAFS} >= {'pretrain', 'classification', 'segmentation', 'ablation', 'demo'}


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """A folder to run in, whose data/ holds a few images in each layout that the configs name."""
    folder = tmp_path_factory.mktemp('configs')
    make_layouts(folder)
    return folder


def shrink(cfg: Config) -> None:
    model, backbone = cfg.model, cfg.model.backbone
    depth = shrink_depth(backbone)
    backbone.arch = dict(embed_dims=WIDTH, num_layers=depth, num_heads=2, feedforward_channels=2 * WIDTH)
    if 'neck' in model:
        model.neck['in_channels' if 'in_channels' in model.neck else 'input_features'] = WIDTH
    for name in ('head', 'decode_head', 'auxiliary_head'):
        head = model.get(name) or {}
        if 'in_channels' in head:
            head.in_channels = [WIDTH] * 4 if isinstance(head.in_channels, list) else WIDTH
        if 'channels' in head:
            head.channels = 8
    if cfg.default_scope == 'mmseg':
        for part in (model, *(cfg.get(n) for n in ('train_dataloader', 'val_dataloader', 'test_dataloader'))):
            quarter_sizes(part, backbone.patch_size)
        quarter_sizes(cfg.get('tta_pipeline'), backbone.patch_size)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name):
            cfg[name].update(num_workers=0, persistent_workers=False, pin_memory=False)
            cfg[name].batch_size = min(2, cfg[name].batch_size)
    has_val = cfg.get('val_dataloader') is not None
    if has_val:
        cfg.val_dataloader.dataset.indices = 1
    if cfg.optim_wrapper.get('accumulative_counts', 1) > 1:
        cfg.optim_wrapper.accumulative_counts = 2
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=STEPS, val_interval=STEPS if has_val else 10**9)
    cfg.log_processor = dict(by_epoch=False)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    best = cfg.default_hooks.checkpoint.get('save_best')
    cfg.default_hooks.checkpoint = dict(type='SafeCheckpointHook', by_epoch=False, interval=STEPS, save_best=best)
    if cfg.get('compile'):
        cfg.compile = dict(backend='aot_eager')  # traced, without a compiler's code, which takes minutes
    for hook in cfg.get('custom_hooks', ()):
        if hook['type'] == 'ProbeHook':
            hook.update(by_epoch=False, interval=1, k=2, num_workers=0)


def shrink_depth(backbone) -> int:
    """Four layers, or as many as the backbone returns the outputs of, the last one where it was the last."""
    depth = (ARCHS[backbone.arch] if isinstance(backbone.arch, str) else backbone.arch)['num_layers']
    indices = backbone.get('out_indices', -1)
    named = [i % depth for i in ([indices] if isinstance(indices, int) else indices)]
    used = sorted(set(named))
    above = int(used[-1] != depth - 1)
    shrunk = max(4, len(used) + above)
    renamed = [shrunk - above - len(used) + used.index(i) for i in named]
    if 'out_indices' in backbone:
        backbone.out_indices = renamed[0] if isinstance(indices, int) else renamed
    if backbone.get('frozen_stages', -1) > 0:
        backbone.frozen_stages = shrunk if backbone.frozen_stages == depth else min(backbone.frozen_stages, shrunk - 1)
    return shrunk


def quarter_sizes(node, patch: int) -> None:
    """Crops, windows and scales of more than 256 pixels at a quarter, in whole patches: 16 times less to compute."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        quarter_sizes(child, patch)
    for key in ('scale', 'crop_size', 'stride', 'size'):
        size = node.get(key) if isinstance(node, dict) else None
        if isinstance(size, tuple) and min(size) > 256:
            node[key] = tuple(n // 4 // patch * patch for n in size)


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
    """The checkpoint that init_cfg names: random weights of *its own* config's backbone, shrunk.

    Returns those, as they should arrive in ``backbone``.
    """
    init_cfg = backbone.get('init_cfg')
    if init_cfg is None:
        return None
    source = source_of(init_cfg.checkpoint)
    shrink(source)
    source.model.backbone.arch.num_layers = backbone.arch.num_layers
    weights = MODELS.build(source.model.backbone).state_dict()
    path = folder / init_cfg.checkpoint
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict={'backbone.' + k: v for k, v in weights.items()}, meta={}), path)
    if init_cfg.get('resample_patch_embed'):
        size = [backbone.patch_size] * 2
        weights['patch_embed.proj.weight'] = resample_patch_embed(weights['patch_embed.proj.weight'], size)
    return weights


@pytest.mark.parametrize('path', LEAFS, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_config(path, data, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    # The runner writes its config five times, and making that text pretty would take longer than the rest together.
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **kwargs: (text, True))
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
        # Of the masking ablation only the token that masked has no place in what follows.
        arrived = {k: v for k, v in start.items() if k != 'mask_token'}
        assert all(torch.equal(seen['backbone.' + k], v) for k, v in arrived.items()), 'starts from the checkpoint'
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
    written = sorted(path.name for path in tmp_path.glob('*.pth'))
    assert f'iter_{STEPS}.pth' in written
    assert any(name.startswith('best_') for name in written) == bool(cfg.default_hooks.checkpoint.save_best)
    for name in written:
        # With all that stands beside the weights: the score of the best one is a numpy number of mmseg's.
        assert read_checkpoint(tmp_path / name)['meta']['iter'] == STEPS
