"""NEPALayer: it gives what timm's block gives, in every setting, and saves no T x T matrix."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from timm.layers import apply_rot_embed_cat
from timm.models.eva import EvaBlock
from torch import nn
from torch.autograd import gradcheck
from torch.nn.modules.module import register_module_forward_hook

from nepa_mm.benchmark.timm_blocks import predict_with_timm_blocks
from nepa_mm.models import NEPAHead, NEPAViT
from nepa_mm.models.backbones.lean_ops import (
    Linear,
    NormRotate,
    PackedLinear,
    ResidualLinear,
    rope_tables,
    rotate,
    sum_rows,
)
from nepa_mm.models.backbones.nepa_layer import NEPALayer

TINY = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
SETTINGS = [
    dict(),
    dict(qk_norm='affine', mlp='swiglu'),
    dict(qk_norm='none', qkv_bias=False),
    dict(layer_scale_init=None),
    dict(rope=None, causal=False),
]


def build(seed: int = 0, **kwargs) -> NEPAViT:
    torch.manual_seed(seed)
    model = NEPAViT(**(dict(arch=TINY, patch_size=4, causal=True) | kwargs)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)  # zero biases and LayerScale of 1e-5 would hide what is done to them
    return model


def loss_and_gradients(model, images, predict=NEPAViT.predict_next, dtype=None):
    model.zero_grad()
    with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
        loss = NEPAHead().loss(*predict(model, images))['loss']
    loss.backward()
    return {'loss': loss.detach()} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def lean_calls(monkeypatch):
    """Counts the layers that ran the lean way."""
    calls = []
    original = NEPALayer._forward_lean
    monkeypatch.setattr(NEPALayer, '_forward_lean', lambda self, *a: (calls.append(self), original(self, *a))[1])
    return calls


@pytest.mark.parametrize('kwargs', SETTINGS)
def test_loss_and_all_gradients_are_those_of_timms_blocks(kwargs, lean_calls):
    model, images = build(**kwargs).double(), torch.randn(2, 3, 12, 16, dtype=torch.float64)
    expected = loss_and_gradients(model, images, predict_with_timm_blocks)
    assert not lean_calls
    got = loss_and_gradients(model, images)
    assert len(lean_calls) == 2
    assert set(got) == set(expected) == {'loss', *dict(model.named_parameters())}
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f'{n}: {m}')


@pytest.mark.parametrize('kwargs', SETTINGS)
def test_bf16_gradients_are_as_near_the_exact_ones_as_those_of_timms_blocks(kwargs, lean_calls):
    """Of one model, either may be nearer by a half; over some models the ratio is 1.00 to 1.04."""
    ratios = []
    for seed in range(10):
        model, images = build(seed, **kwargs), torch.randn(4, 3, 16, 16)
        exact = loss_and_gradients(build(seed, **kwargs).double(), images.double())

        def error(got, exact=exact):
            """Root mean square over the parameters, of the relative errors."""
            squares = [((v.double() - exact[n]).norm() / exact[n].norm()).item() ** 2 for n, v in got.items()]
            return (sum(squares) / len(squares)) ** 0.5

        lean_calls.clear()
        ours = error(loss_and_gradients(model, images, dtype=torch.bfloat16))
        assert len(lean_calls) == 2
        theirs = error(loss_and_gradients(model, images, predict_with_timm_blocks, dtype=torch.bfloat16))
        assert len(lean_calls) == 2
        assert ours > 1e-4
        ratios.append(ours / theirs)
    assert sum(ratios) / len(ratios) < 1.1


def test_bf16_weights():
    model, images = build().bfloat16(), torch.randn(2, 3, 16, 16).bfloat16()
    got, expected = loss_and_gradients(model, images), loss_and_gradients(model, images, predict_with_timm_blocks)
    assert {v.dtype for n, v in got.items() if n != 'loss'} == {torch.bfloat16}
    for name in ('layers.0.attn.qkv.weight', 'layers.1.mlp.fc2.weight', 'layers.1.gamma_1'):
        cosine = torch.cosine_similarity(got[name].float().flatten(), expected[name].float().flatten(), dim=0)
        assert cosine > 0.99, name


def test_float16_autocast_takes_the_plain_way(lean_calls):
    model, images = build(), torch.randn(2, 3, 16, 16)
    got = loss_and_gradients(model, images, dtype=torch.float16)
    assert not lean_calls
    assert torch.isfinite(got['loss'])


# ---------------------------------------------------------------------- when it is lean


@pytest.mark.parametrize(
    ('kwargs', 'train', 'lean'),
    [
        (dict(), True, True),
        (dict(with_cp=True), True, True),
        (dict(drop_path_rate=0.5), True, False),
        (dict(drop_path_rate=0.5), False, True),
        (dict(drop_rate=0.1), True, False),
        (dict(attn_drop_rate=0.1), True, False),
        (dict(attn_drop_rate=0.1), False, True),
    ],
)
def test_randomness_in_a_layer_takes_the_plain_way(kwargs, train, lean, lean_calls):
    # Of the first layer: drop path rises from 0.
    model = build(**kwargs).train(train)
    model.predict_next(torch.randn(1, 3, 8, 8))
    assert (model.layers[1] in lean_calls) == lean


def test_what_hangs_on_or_replaces_a_linear_layer_is_not_passed_by(lean_calls):
    images = torch.randn(1, 3, 8, 8)
    model = build()
    before = model.predict_next(images)[0]
    assert len(lean_calls) == 2

    seen = []
    handle = model.layers[0].attn.qkv.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(model.predict_next(images)[0], before)
    assert seen == [1] and len(lean_calls) == 3
    handle.remove()

    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model.layers[0].mlp.fc1.__class__ = Doubled
    assert (model.predict_next(images)[0] - before).abs().max() > 1e-2


class Doubling(nn.Module):
    """In the place of a module, with its attributes."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name):
        return super().__getattr__(name) if name == 'inner' else getattr(self.inner, name)

    def forward(self, *args, **kwargs):
        return 2 * self.inner(*args, **kwargs)


def normed(shape, seed=0, **kwargs):
    norm = nn.LayerNorm(shape, **kwargs)
    nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(seed))
    return norm


@pytest.mark.parametrize(
    ('path', 'replace'),
    [
        *((name, Doubling) for name in ('attn', 'attn.qkv', 'attn.proj', 'mlp', 'mlp.fc1', 'mlp.act', 'mlp.fc2')),
        *((name, Doubling) for name in ('attn.q_norm', 'attn.proj_drop', 'mlp.drop1', 'drop_path1', 'norm2')),
        ('attn.q_norm', lambda _: nn.RMSNorm(16)),
        ('attn.k_norm', lambda _: normed(16)),
        ('attn.q_norm', lambda _: nn.LayerNorm((2, 13, 16), elementwise_affine=False)),
        ('attn.norm', lambda _: normed(32)),
        ('mlp.norm', lambda _: normed(64)),
        ('attn.gate', lambda _: nn.Linear(32, 32)),
        ('attn.proj', lambda _: nn.Linear(32, 32, bias=False)),
        ('mlp.fc1', lambda _: nn.Linear(32, 64, bias=False)),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, '__name__', ''),
)
def test_another_module_takes_the_plain_way(path, replace, lean_calls):
    layer, x = build().layers[0], torch.randn(2, 13, 32)
    layer(x)
    assert len(lean_calls) == 1
    parent, _, name = path.rpartition('.')
    owner = layer.get_submodule(parent)
    setattr(owner, name, replace(getattr(owner, name)))
    assert torch.equal(layer(x), EvaBlock.forward(layer, x))
    assert len(lean_calls) == 1


@pytest.mark.parametrize('path', ['attn', 'attn.proj', 'norm1', 'mlp.act'])
@pytest.mark.parametrize(
    'hook',
    [
        'register_forward_hook',
        'register_forward_pre_hook',
        'register_full_backward_hook',
        'register_full_backward_pre_hook',
    ],
)
def test_every_kind_of_hook_is_called(hook, path):
    layer, seen = build().layers[0], []
    getattr(layer.get_submodule(path), hook)(lambda *_: seen.append(path))
    layer(torch.randn(1, 5, 32, requires_grad=True)).sum().backward()
    assert seen == [path]


def test_global_hooks_and_a_forward_of_ones_own_are_called(lean_calls):
    layer, x = build().layers[0], torch.randn(1, 5, 32)
    expected, names = layer(x), []
    handle = register_module_forward_hook(lambda module, *_: names.append(type(module).__name__))
    torch.testing.assert_close(layer(x), expected)
    handle.remove()
    assert names.count('Linear') == 4
    assert len(lean_calls) == 1
    fc1 = layer.mlp.fc1
    fc1.forward = lambda x: 0 * nn.functional.linear(x, fc1.weight)
    torch.testing.assert_close(layer(x), EvaBlock.forward(layer, x))
    assert len(lean_calls) == 1
    del fc1.forward
    torch.testing.assert_close(layer(x), expected)
    assert len(lean_calls) == 2


@pytest.mark.parametrize('target', ['qkv', 'proj', 'fc1', '.*layers.*'])
def test_mmpretrains_lora_trains(target):
    backbone = dict(type='NEPAViT', arch=TINY, patch_size=4, layer_scale_init=1.0, rope=dict(rescale=None))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(type='mmpretrain.LoRAModel', module=backbone, alpha=16, rank=4, targets=[dict(type=target)])
        )
    images = torch.randn(2, 3, 8, 8)
    plain = NEPAViT(**{k: v for k, v in backbone.items() if k != 'type'})
    names = {k: k.replace('.original_layer', '') for k, _ in model.module.named_parameters() if '.lora_' not in k}
    plain.load_state_dict({new: model.module.get_parameter(old) for old, new in names.items()})
    torch.testing.assert_close(model(images)[0], plain(images)[0])  # an adapter begins as nothing

    adapters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert adapters and all('.lora_' in name for name in adapters)
    optimizer = torch.optim.SGD(adapters.values(), lr=1.0)
    losses, target_maps = [], torch.randn(2, 32, 2, 2)
    for _ in range(4):
        optimizer.zero_grad()
        losses.append((model(images)[0] - target_maps).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in adapters.values())
    assert losses[-1] < 0.99 * losses[0]

    tokens, grid = model.module.embed(images)
    rope, x, y = model.module.rope.get_embed(list(grid)), tokens, tokens
    for layer in model.module.layers:
        x, y = layer(x, rope=rope), EvaBlock.forward(layer, y, rope=rope)
    assert torch.equal(x, y)


def test_functional_transforms_take_the_plain_way():
    model = build()
    layer, x, rope = model.layers[0], torch.randn(3, 13, 32), model.rope.get_embed([3, 4])
    expected = layer(x, rope=rope)
    stacked = torch.func.vmap(lambda part: layer(part[None], rope=rope)[0])(x)
    torch.testing.assert_close(stacked, expected)

    parameters = dict(layer.named_parameters())

    def total(parameters):
        return torch.func.functional_call(layer, parameters, (x,), dict(rope=rope)).square().sum()

    grads = torch.func.grad(total)(parameters)
    total(parameters).backward()
    for name, p in parameters.items():
        torch.testing.assert_close(grads[name], p.grad, rtol=1e-3, atol=1e-3)
    assert torch.func.grad(lambda image: model.predict_next(image)[0].sum())(torch.randn(1, 3, 8, 8)).abs().max() > 0


def test_frozen_weights_get_no_gradient_and_change_no_other():
    images = torch.randn(2, 3, 16, 16)
    model = build()
    expected = loss_and_gradients(model, images)
    for name in ('attn.qkv.weight', 'attn.proj.bias', 'mlp.fc1.bias', 'mlp.fc2.weight', 'gamma_2'):
        model.get_parameter(f'layers.0.{name}').requires_grad_(False)
    got = loss_and_gradients(model, images)
    assert len(expected) - len(got) == 5
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name])


def test_the_gradient_of_the_image():
    model, images = build().double(), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    grads = []
    for predict in (NEPAViT.predict_next, predict_with_timm_blocks):
        given = images.clone().requires_grad_()
        predict(model, given)[0].square().sum().backward()
        grads.append(given.grad)
    torch.testing.assert_close(*grads)


def test_it_compiles_as_one_graph():
    model, images = build(), torch.randn(2, 3, 8, 8)
    head = NEPAHead()
    eager = loss_and_gradients(model, images)

    def loss(images):
        return head.loss(*model.predict_next(images))['loss']

    model.zero_grad()
    torch.compile(loss, backend='aot_eager', fullgraph=True)(images).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, eager[name], rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------------- the functions


def _draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_gradients_of_the_functions_by_finite_differences():
    x = _draw(2, 3, 8)
    assert gradcheck(PackedLinear.apply, (x, _draw(24, 8), _draw(24)))
    assert gradcheck(lambda *a: PackedLinear.apply(*a, None), (x, _draw(24, 8)))
    assert gradcheck(Linear.apply, (x, _draw(5, 8), _draw(5)))
    end = (x, _draw(6, 8), _draw(6))
    assert gradcheck(ResidualLinear.apply, (*end, _draw(6), _draw(2, 3, 6)))
    assert gradcheck(lambda *a: ResidualLinear.apply(*a[:3], None, a[3]), (*end, _draw(2, 3, 6)))
    angle = torch.randn(3, 1, 2, dtype=torch.float64)
    cos, sin = angle.cos().tile(2), angle.sin()
    q = _draw(2, 3, 2, 4)
    assert gradcheck(lambda q, w: NormRotate.apply(q, w, cos, sin, 1e-12), (q, _draw(4)))
    assert gradcheck(lambda q: NormRotate.apply(q, None, cos, sin, None), (q,))
    assert gradcheck(lambda q: NormRotate.apply(q, None, None, None, 1e-12), (q,))


def test_rotation_leaves_bos_keeps_lengths_and_turns_back():
    model = build().eval()
    embed = model.rope.get_embed([2, 3])  # (6, 32)
    cos, sin = rope_tables(embed, torch.float32)
    x = torch.randn(1, 7, 2, 16)
    turned = rotate(x, cos, sin)
    assert torch.equal(turned[:, 0], x[:, 0])
    assert (turned[:, 1:] - x[:, 1:]).abs().amax(dim=-1).min() > 1e-2
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    by_timm = apply_rot_embed_cat(x[:, 1:].transpose(1, 2), embed, half=True).transpose(1, 2)
    torch.testing.assert_close(turned[:, 1:], by_timm)
    torch.testing.assert_close(rotate(turned, cos, sin, back=True), x)


def test_a_bias_gradient_in_bf16_is_summed_in_fp32():
    x = (1 + torch.rand(4000, 16)).bfloat16()  # bf16 additions would stop growing at 512
    torch.testing.assert_close(sum_rows(x).float(), x.float().sum(0), rtol=0.004, atol=0)


# ---------------------------------------------------------------------- memory


@pytest.mark.parametrize('causal', [True, False])
@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
@pytest.mark.parametrize('lean', [True, False])
def test_nothing_of_t_x_t_is_saved_for_the_backward_pass(causal, dtype, lean, monkeypatch):
    if not lean:
        monkeypatch.setattr(NEPALayer, '_is_lean', lambda *_: False)
    model, images = build(causal=causal).train(), torch.randn(1, 3, 80, 80)  # 400 patches, each head 2 x 16 wide

    def largest():
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t)
        with hooks, torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
            model.predict_next(images)
        return max(sizes)

    assert largest() < 401 * 401
    if not lean:
        for layer in model.layers:
            layer.attn.fused_attn = False
        assert largest() >= 2 * 401 * 401, 'the test sees such a matrix where there is one'
