"""NEPARope: timm's numbers, draw by draw, from a grid that is copied once."""

import copy

import pytest
import torch
from timm.layers import RotaryEmbeddingDinoV3

from nepa_mm.models.backbones.nepa_layers import build_rope

CHANGES = [dict(), dict(rescale=2.0), dict(shift=0.3), dict(jitter=1.5), dict(shift=0.3, jitter=1.5, rescale=2.0)]


def both(dtype=torch.float32, **changes):
    ours = build_rope(dict(rescale=None, base=100.0) | changes, head_dim=16)
    options = {f'{name}_coords': value for name, value in changes.items()}
    theirs = RotaryEmbeddingDinoV3(16, temperature=100.0, rotate_half=True, **options)
    return ours.to(dtype), theirs.to(dtype)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('changes', CHANGES, ids=str)
def test_it_is_timms_to_the_bit_and_draws_the_same_numbers(changes, dtype):
    ours, theirs = both(dtype, **changes)
    for train in (True, False):
        results = []
        for rope in (ours, theirs):
            rope.train(train)
            torch.manual_seed(1)
            results.append([rope.get_embed(list(grid)) for grid in ((3, 4), (7, 2), (3, 4))] + [torch.get_rng_state()])
        for a, b in zip(*results, strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


def test_the_grid_is_made_once(monkeypatch):
    rope, _ = both(rescale=2.0)
    first = rope.train().get_embed([3, 4])
    monkeypatch.setattr('nepa_mm.models.backbones.rope.make_coords_dinov3', None)
    assert not torch.equal(rope.get_embed([3, 4]), first)
    assert torch.equal(rope.eval().get_embed([3, 4]), copy.deepcopy(rope).get_embed([3, 4]))
    with pytest.raises(TypeError):
        rope.get_embed([4, 3])


def test_few_grids_are_kept():
    rope, theirs = both()
    for height in [*range(1, 40), 1]:
        assert torch.equal(rope.get_embed([height, 2]), theirs.get_embed([height, 2]))
    assert len(rope._grids) == 16
    assert not rope.state_dict()


def test_a_grid_from_inference_serves_training():
    rope, _ = both(rescale=2.0)
    with torch.inference_mode():
        rope.get_embed([3, 4])
    x = torch.randn(12, 32, requires_grad=True)
    (x * rope.train().get_embed([3, 4])).sum().backward()
    assert x.grad.abs().min() >= 0 and x.grad.abs().max() > 0.1


def test_each_compiled_forward_draws_anew():
    rope, _ = both(rescale=2.0)
    torch._dynamo.reset()
    compiled = torch.compile(lambda: rope.train().get_embed([3, 4]), backend='aot_eager')
    assert not torch.equal(compiled(), compiled())
    assert not rope._grids
