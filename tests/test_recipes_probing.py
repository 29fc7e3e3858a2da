"""Numbers of the leafs that probe, by value."""

from pathlib import Path

import pytest
from mmengine.config import Config

from nepa_mm.models.backbones.archs import ARCHS

CONFIGS = Path(__file__).parents[1] / 'configs'


@pytest.mark.parametrize(
    ('name', 'layer', 'arch', 'qk_norm', 'start'),
    [
        (
            'nepa_base-p14_linear-layer6_8xb128-bf16-coslr-90e_in1k',
            6,
            'base',
            'plain',
            'nepa_base-p14_8xb512-bf16-coslr-1600e_in1k',
        ),
        (
            'nepa_large-p14_linear-layer11_8xb128-bf16-coslr-90e_in1k',
            11,
            'large',
            'affine',
            'nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k',
        ),
    ],
)
def test_linear_probe_of_a_layer_in_the_middle(name, layer, arch, qk_norm, start):
    cfg = Config.fromfile(CONFIGS / f'classification/{name}.py')
    backbone = cfg.model.backbone
    assert backbone.out_indices == layer - 1, 'the file counts layers from one, out_indices from zero'
    assert (backbone.arch, backbone.qk_norm, backbone.out_type) == (arch, qk_norm, 'avg_featmap')
    assert backbone.frozen_stages == ARCHS[arch]['num_layers'], 'all of it'
    assert not backbone.get('causal', False)
    width = ARCHS[arch]['embed_dims']
    assert cfg.model.neck.input_features == cfg.model.head.in_channels == width and not cfg.model.neck.affine
    assert (cfg.model.head.type, cfg.model.head.num_classes) == ('LinearClsHead', 1000)
    assert backbone.init_cfg.checkpoint == f'work_dirs/{start}/epoch_1600.pth'
    trained = Config.fromfile(CONFIGS / f'pretrain/{start}.py').model.backbone
    assert (trained.arch, trained.qk_norm, trained.mlp) == (arch, qk_norm, backbone.mlp)


@pytest.mark.parametrize(('pooling', 'out_type'), [('', 'avg_featmap'), ('-last-token', 'last_token')])
def test_linear_probes_of_the_paper(pooling, out_type):
    """14.1 and 11.3 in the paper, which does not state the attention; causal is assumed for both."""
    name = f'nepa-swiglu_base-p14_linear{pooling}_8xb128-bf16-coslr-90e_in1k'
    backbone = Config.fromfile(CONFIGS / f'classification/{name}.py').model.backbone
    assert (backbone.causal, backbone.mlp, backbone.out_type) == (True, 'swiglu', out_type)
    assert backbone.frozen_stages == 12 and backbone.get('out_indices', -1) == -1


def test_pretraining_that_is_probed():
    plain, probed = (
        Config.fromfile(CONFIGS / f'pretrain/nepa_small-p14_1xb256-bf16-coslr-300e_image-folder{suffix}.py')
        for suffix in ('', '-probe')
    )
    (hook,) = probed.custom_hooks
    assert (hook.type, hook.interval, hook.k, hook.pooling, hook.layers) == ('ProbeHook', 10, 20, 'avg', 'all')
    for split in ('train', 'val'):
        dataset = hook[f'{split}_dataset']
        assert dataset.data_root == f'data/probe/{split}'
        steps = [step.type for step in dataset.pipeline]
        assert steps == ['LoadImageFromFile', 'ResizeEdge', 'CenterCrop', 'PackInputs'], 'nothing random'
        assert dataset.pipeline[2].crop_size == plain.train_dataloader.dataset.pipeline[1].scale
    for key in ('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr'):
        assert probed[key] == plain[key], 'the same training'
