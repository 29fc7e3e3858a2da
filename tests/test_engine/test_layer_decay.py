"""Layer-wise learning-rate decay: every value, for classifier and segmentor alike."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmseg.registry import MODELS as MMSEG_MODELS

from nepa_mm.checkpoints import to_release
from tests import golden

ARCH = dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32)


def wrapper_of(model, lr=1.0, weight_decay=0.05, **paramwise_cfg):
    return build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=lr, weight_decay=weight_decay),
            constructor='BackboneLayerDecayConstructor',
            paramwise_cfg=paramwise_cfg,
        ),
    )


def settings(model, wrapper):
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: (g['lr'], g['weight_decay']) for g in wrapper.optimizer.param_groups for p in g['params']}


def classifier(**kwargs):
    return MMPRETRAIN_MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='NEPAViT', arch=ARCH, patch_size=4, out_type='avg_featmap', **kwargs),
            head=dict(type='NEPAClsHead', num_classes=2, in_channels=16),
        )
    )


def segmentor():
    return MMSEG_MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=dict(type='NEPAViT', arch=ARCH, patch_size=4),
            neck=dict(type='PatchPyramid', in_channels=16, patch_size=4, norm_cfg=dict(type='BN')),
            decode_head=dict(type='FCNHead', in_channels=16, channels=8, num_classes=2, norm_cfg=dict(type='BN')),
        )
    )


@pytest.mark.parametrize('build', [classifier, segmentor])
@pytest.mark.parametrize('decay_last_layer', [False, True])
def test_rate_of_every_depth(build, decay_last_layer):
    model = build()
    got = settings(model, wrapper_of(model, layer_decay_rate=0.5, decay_last_layer=decay_last_layer))
    shift = int(decay_last_layer)
    depth_from_top = {'layers.2': 0, 'layers.1': 1, 'layers.0': 2, 'patch_embed': 3, 'cls_token': 3}
    assert set(got) == {n for n, _ in model.named_parameters()}
    for name, (lr, weight_decay) in got.items():
        below = [k for part, k in depth_from_top.items() if name.startswith(f'backbone.{part}')]
        assert lr == pytest.approx(0.5 ** (below[0] + shift) if below else 1.0), name
        flat = dict(model.named_parameters())[name].ndim == 1
        assert weight_decay == (0 if flat else 0.05), name


def test_few_groups():
    model = segmentor()
    assert len(wrapper_of(model, layer_decay_rate=0.65).optimizer.param_groups) == 2 * 4
    assert len(wrapper_of(model).optimizer.param_groups) == 2


def test_groups_tell_their_layer_to_the_schedule():
    model = classifier()
    # At half the rate the head has the rate of the layer below the top, and yet a group of its own.
    keys = {'head': dict(lr_mult=0.5), 'fc_norm': dict(lr_mult=1.0)}
    groups = wrapper_of(model, layer_decay_rate=0.5, custom_keys=keys).optimizer.param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    told = {names[id(p)]: (g['depth_from_top'], g['layer_decay_rate'], g['lr']) for g in groups for p in g['params']}
    assert told['head.fc.weight'] == (0, 0.5, 0.5)
    assert told['head.fc_norm.weight'] == (0, 0.5, 1.0)
    assert told['backbone.layers.1.mlp.fc2.weight'] == (1, 0.5, 0.5)
    assert told['backbone.patch_embed.proj.weight'] == (3, 0.5, 0.125)
    assert not any('depth_from_top' in g for g in wrapper_of(model).optimizer.param_groups)


def test_the_fine_tuning_recipe_has_the_release_s_groups():
    told = json.loads((golden.GOLDEN / 'finetune_param_groups.json').read_text())
    config = golden.CASES['classify_bidirectional']['config']
    model = MMPRETRAIN_MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=golden.backbone_config(config, causal=False, out_type='avg_featmap', freeze_patch_embed=True),
            head=dict(type='NEPAClsHead', num_classes=7, in_channels=48),
        )
    )
    recipe = Config.fromfile(
        golden.ROOT / 'configs' / 'classification' / 'nepa_base-p14_8xb128-bf16-coslr-100e_in1k.py'
    ).optim_wrapper
    assert recipe.optimizer.lr == pytest.approx(told['base_lr'])
    got = settings(model, build_optim_wrapper(model, recipe))
    numbers = {n: torch.tensor([[lr, decay]] * (3 if '.qkv.' in n else 1)) for n, (lr, decay) in got.items()}
    ours = {n: v.squeeze(0).tolist() for n, v in to_release(numbers).items()}
    assert set(ours) == set(told['parameters'])
    wrong = {}
    for name, values in told['parameters'].items():
        expected = [values['base_lr'] * told['layer_decay'] ** values['depth_from_top'], values['weight_decay']]
        if ours[name] != pytest.approx(expected, rel=1e-6):
            wrong[name] = (ours[name], expected)
    assert not wrong


def test_custom_keys_take_the_longest_match():
    model = classifier()
    keys = {'head': dict(lr_mult=10.0), 'head.fc.bias': dict(lr_mult=3.0, decay_mult=2.0)}
    got = settings(model, wrapper_of(model, custom_keys=keys))
    assert got['head.fc.weight'] == (10.0, 0.05)
    assert got['head.fc.bias'] == (3.0, 0.1)
    assert got['head.fc_norm.weight'] == (10.0, 0.0)


def test_frozen_parameters_are_left_out():
    model = classifier(frozen_stages=3)
    assert set(settings(model, wrapper_of(model))) == {n for n, _ in model.named_parameters() if 'head' in n}


def test_state_survives_a_round_trip():
    model = classifier()
    wrapper = wrapper_of(model, layer_decay_rate=0.5)
    wrapper.update_params(model(torch.randn(2, 3, 8, 8)).square().sum() + sum(p.sum() for p in model.parameters()))
    again = wrapper_of(model, layer_decay_rate=0.5)
    again.load_state_dict(wrapper.state_dict())
    assert again.state_dict()['state'].keys() == wrapper.state_dict()['state'].keys()


def test_wrong_use():
    with pytest.raises(ValueError, match=r"paramwise_cfg has no \['decay_rate'\]"):
        wrapper_of(classifier(), decay_rate=0.5)
    for rate in (1.5, 0, None):
        with pytest.raises(ValueError, match=f'layer_decay_rate={rate} is no number'):
            wrapper_of(classifier(), layer_decay_rate=rate)
    with pytest.raises(ValueError, match='takes lr_mult and decay_mult only'):
        wrapper_of(classifier(), custom_keys={'cls_token': dict(lr_mul=0.1)})
    with pytest.raises(ValueError, match=r"custom_keys \['neck'\] match no parameter"):
        wrapper_of(classifier(), custom_keys={'neck': dict(lr_mult=0.1)})
    with pytest.raises(ValueError, match='needs an lr'):
        build_optim_wrapper(
            classifier(), dict(optimizer=dict(type='AdamW'), constructor='BackboneLayerDecayConstructor')
        )
    with pytest.raises(TypeError, match='Linear.backbone is NoneType, which has no get_layer_depth'):
        wrapper_of(torch.nn.Linear(2, 2), layer_decay_rate=0.5)
