"""FLOPs by formula are those that torch counts."""

import pytest
import torch

from nepa_mm.benchmark.flops import Flops, ViTShape, vit_flops, vit_shape
from nepa_mm.models import NEPAViT
from nepa_mm.models.backbones.nepa_layer import NEPALayer
from tests.flops import flop_counter

ARCH = dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=40)
SIZE = (20, 13)  # 5 x 4 patches of 4, the last column filled up


@pytest.fixture(autouse=True)
def plain_formulas(monkeypatch):
    """The layer as it runs on a GPU: torch's counter knows neither addmm_ nor that a bias' gradient is a sum."""
    monkeypatch.setattr(NEPALayer, '_is_lean', lambda *args: False)


def counted(config: dict, batch: int = 2) -> Flops:
    model = NEPAViT(**config).train()
    images = torch.rand(batch, 3, *SIZE)
    with flop_counter() as counter:
        out = torch.stack([x.sum() for x in model(images)]).sum()
        forward = counter.get_total_flops()
        if out.requires_grad:
            out.backward()
    return Flops(forward / batch, counter.get_total_flops() / batch)


@pytest.mark.parametrize(
    'changes',
    [
        dict(),
        dict(causal=True),
        dict(mlp='swiglu', qk_norm='affine'),
        dict(layer_scale_init=None, qk_norm='none', rope=None, pos_embed=(5, 4)),
        dict(freeze_patch_embed=True),
        dict(frozen_stages=0),
        dict(frozen_stages=2),
        dict(frozen_stages=3),
        dict(out_indices=(0, 1)),
        dict(frozen_stages=2, out_indices=0),
        dict(with_cp=True),
        dict(with_cp=True, frozen_stages=1),
    ],
    ids=str,
)
def test_equal_what_torch_counts(changes):
    config = dict(arch=ARCH, patch_size=4, **changes)
    assert vit_flops(vit_shape(config, SIZE), recompute=True) == counted(config)


def test_base_by_hand():
    """ViT-B/14 at 224: 257 tokens, 12 layers of 12 D^2 and two products of T^2 D, and the patches."""
    shape = vit_shape(dict(arch='base', causal=True), (224, 224))
    linear, attention, patches = 12 * 2 * 257 * 12 * 768**2, 12 * 2 * 2 * 257**2 * 768, 2 * 256 * 588 * 768
    assert vit_flops(shape) == Flops(linear + attention + patches, 3 * (linear + attention) + 2 * patches)
    half = 12 * 2 * 2 * sum(range(1, 258)) * 768
    assert vit_flops(shape, skip_masked=True).forward == linear + half + patches
    bidirectional = vit_shape(dict(arch='base'), (224, 224))
    assert vit_flops(bidirectional, skip_masked=True) == vit_flops(bidirectional) == vit_flops(shape)


def test_swiglu_has_a_third_more():
    gelu, swiglu = (vit_flops(vit_shape(dict(arch='large', mlp=mlp), (224, 224))).forward for mlp in ('gelu', 'swiglu'))
    assert swiglu / gelu == pytest.approx(4 / 3, abs=0.02)


def test_the_config_decides_over_the_algorithm():
    assert vit_shape({}, (28, 28), causal=True).causal
    assert not vit_shape(dict(causal=False), (28, 28), causal=True).causal
    assert vit_shape(dict(type='NEPAViT', arch='tiny', out_indices=(2, -2)), (28, 30)) == ViTShape(
        embed_dims=192, num_layers=11, feedforward_channels=768, mlp='gelu', patch_size=14, image_size=(28, 30)
    )
    with pytest.raises(ValueError, match="arch='giant' is unknown"):
        vit_shape(dict(arch='giant'), (28, 28))
