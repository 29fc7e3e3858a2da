"""from_release and to_release: exact, both ways, on any subset."""

import pytest
import torch

from nepa_mm.checkpoints import from_release, to_release
from nepa_mm.models import NEPAViT
from tests import golden


@pytest.mark.parametrize('name', list(golden.CASES))
def test_round_trip_is_bit_exact(name):
    release = golden.part(golden.tensors(name), 'state.')
    back = to_release(from_release(release))
    assert set(back) == set(release)
    assert all(torch.equal(back[k], release[k]) for k in release)


@pytest.mark.parametrize('name', list(golden.CASES))
def test_names_are_those_of_nepa_vit(name):
    case = golden.CASES[name]
    weights = from_release(golden.part(golden.tensors(name), 'state.'))
    model = golden.build_backbone(case['config'], causal=False)
    backbone = {k for k in weights if not k.startswith('head.')}
    assert backbone == set(model.state_dict())
    heads = {'head.fc_norm.weight', 'head.fc_norm.bias', 'head.fc.weight', 'head.fc.bias'}
    assert set(weights) - backbone == (heads if name.startswith('classify') else set())


def test_query_key_value_are_joined_in_this_order():
    pre = 'vit_nepa.encoder.layer.11.attention.attention'
    given = {f'{pre}.{n}.bias': torch.full((2,), float(i)) for i, n in enumerate(('query', 'key', 'value'))}
    joined = from_release(given)
    assert list(joined) == ['layers.11.attn.qkv.bias']
    assert joined['layers.11.attn.qkv.bias'].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize('name', ['pretrain_gelu_affine', 'pretrain_swiglu'])
def test_any_subset_survives_the_round_trip(name):
    release = golden.part(golden.tensors(name), 'state.')
    gate = [k for k in release if 'gate_proj' in k][:1]  # what tells a gated MLP's up_proj from a plain one's
    for key in release:
        subset = {k: release[k] for k in {key, *gate}}
        back = to_release(from_release(subset))
        assert set(back) == set(subset)
        assert torch.equal(back[key], release[key])
    layer = {k: v for k, v in release.items() if 'layer.1.' in k}
    assert set(to_release(from_release(layer))) == set(layer)


def test_prefix_of_the_backbone_is_dropped():
    model = NEPAViT(arch=dict(embed_dims=8, num_layers=1, num_heads=1, feedforward_channels=8), patch_size=2)
    plain = to_release(model.state_dict())
    prefixed = to_release({'backbone.' + k: v for k, v in model.state_dict().items()})
    assert set(plain) == set(prefixed)


def test_nothing_is_shared_with_the_joined_tensor():
    weights = {'layers.0.attn.qkv.weight': torch.zeros(6, 2)}
    to_release(weights)['vit_nepa.encoder.layer.0.attention.attention.query.weight'] += 1
    assert weights['layers.0.attn.qkv.weight'].count_nonzero() == 0


def test_unknown_keys_are_refused():
    with pytest.raises(KeyError, match='vit_nepa.encoder.layer.0.attention.attention.q_lora'):
        from_release({'vit_nepa.encoder.layer.0.attention.attention.q_lora': torch.zeros(1)})
    with pytest.raises(KeyError, match='decode_head.conv_seg.weight'):
        to_release({'decode_head.conv_seg.weight': torch.zeros(1)})
