"""NEPAViT: causality, sizes, modes, freezing, the forms of its output, and its errors."""

import copy
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage

from nepa_mm.models import FeatureMaps, NEPAViT

TINY = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)


def build(**kwargs) -> NEPAViT:
    # LayerScale 1: at 1e-5 the layers hardly act, and a test of what they do would pass without them.
    return NEPAViT(**(dict(arch=TINY, patch_size=4, layer_scale_init=1.0) | kwargs))


@pytest.mark.parametrize(
    ('kwargs', 'count'),
    [
        (dict(arch='base', qk_norm='plain'), 85_527_552),
        (dict(arch='large', qk_norm='affine'), 302_967_808),
        (dict(arch='base', mlp='swiglu'), 113_875_968),
        (dict(arch='large', mlp='swiglu'), 403_726_336),
    ],
)
def test_parameter_counts_of_the_paper_and_the_release(kwargs, count):
    with torch.device('meta'):
        assert sum(p.numel() for p in NEPAViT(**kwargs).parameters()) == count


@pytest.mark.parametrize(('arch', 'dims'), [('tiny', (192, 12, 3)), ('small', (384, 12, 6)), ('huge', (1280, 32, 16))])
def test_named_archs(arch, dims):
    with torch.device('meta'):
        model = NEPAViT(arch=arch)
    assert (model.embed_dims, len(model.layers), model.layers[0].attn.num_heads) == dims
    assert model.layers[0].mlp.fc1.out_features == 4 * dims[0]


def test_learned_positions_enter_the_layers_and_not_the_targets():
    model = build(rope=None, pos_embed=(4, 4)).eval()
    image = torch.randn(1, 3, 4, 4).tile(1, 1, 4, 4)  # 16 equal patches
    (tokens,) = model.encode(model.embed(image)[0], (4, 4), [2])
    assert (tokens[0, 1:] - tokens[0, 1]).abs().amax(dim=-1)[1:].min() > 1e-3
    _, embeddings = model.predict_next(image)
    assert torch.equal(embeddings[0, 1:], embeddings[0, 1:2].expand(16, -1))
    assert dict(model.named_parameters())['pos_embed.weight'].shape == (1, 16, 32)
    # On its own grid as they are, BOS untouched; on another one resampled, constants staying constant.
    tokens = torch.zeros(1, 17, 32)
    assert torch.equal(model.pos_embed(tokens, (4, 4))[:, 1:], model.pos_embed.weight)
    assert model.pos_embed(tokens, (4, 4))[:, 0].abs().max() == 0
    torch.nn.init.constant_(model.pos_embed.weight, 0.5)
    other = model.pos_embed(torch.zeros(1, 1 + 6, 32), (2, 3))
    torch.testing.assert_close(other[:, 1:], torch.full((1, 6, 32), 0.5))
    assert model.get_layer_depth('backbone.pos_embed.weight', 'backbone.') == (0, 5)
    assert not build(pos_embed=(4, 4), frozen_stages=0).pos_embed.weight.requires_grad


@pytest.mark.parametrize('grid', [16, (16,), (0, 4), (4.0, 4)])
def test_wrong_grids_of_learned_positions(grid):
    with pytest.raises(ValueError, match='is no grid of patches; give'):
        build(pos_embed=grid)


# ---------------------------------------------------------------------- causality


@pytest.mark.parametrize('mlp', ['gelu', 'swiglu'])
@pytest.mark.parametrize('qk_norm', ['none', 'plain', 'affine'])
def test_changing_patch_t_moves_nothing_before_it(qk_norm, mlp):
    model = build(causal=True, qk_norm=qk_norm, mlp=mlp).eval()
    images = torch.randn(1, 3, 16, 16)  # 4 x 4 patches
    before, _ = model.predict_next(images)
    for t in (0, 5, 15):
        changed = images.clone()
        row, col = divmod(t, 4)
        changed[..., row * 4 : row * 4 + 4, col * 4 : col * 4 + 4] += 1
        after, _ = model.predict_next(changed)
        moved = (after - before).abs().amax(dim=-1)[0]  # (1 + T,), position 0 is BOS, patch t stands at t + 1
        assert moved[: t + 1].max() == 0
        assert (moved[t + 1 :] > 1e-4).all()


def test_bidirectional_attention_looks_ahead():
    model = build(causal=False).eval()
    images = torch.randn(1, 3, 16, 16)
    changed = images.clone()
    changed[..., -4:, -4:] += 1
    moved = (model.predict_next(changed)[0] - model.predict_next(images)[0]).abs().amax(dim=-1)[0]
    assert (moved > 1e-5).all()


# ---------------------------------------------------------------------- sizes and precisions


@pytest.mark.parametrize(
    ('size', 'patch', 'grid'),
    [((4, 4), 4, (1, 1)), ((56, 84), 14, (4, 6)), ((512, 512), 14, (37, 37)), ((5, 23), 4, (2, 6))],
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('causal', [True, False])
def test_any_size(size, patch, grid, dtype, causal):
    model = build(patch_size=patch, causal=causal, out_indices=(0, -1)).eval()
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        maps = model(torch.randn(1, 3, *size))
    assert isinstance(maps, FeatureMaps)
    assert maps.image_size == size
    assert [tuple(x.shape) for x in maps] == [(1, 32, *grid)] * 2
    assert all(torch.isfinite(x).all() for x in maps)


@pytest.mark.parametrize('rope', [True, None])
def test_bf16_stays_near_fp32(rope):
    model = build(rope=rope, causal=True).eval()
    images = torch.randn(2, 3, 16, 16)
    exact, _ = model.predict_next(images)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough, _ = model.predict_next(images)
    cosine = torch.cosine_similarity(exact, rough.float(), dim=-1)
    assert cosine.min() > 0.999


def test_padding_is_zeros_right_and_bottom():
    model = build().eval()
    images = torch.randn(1, 3, 10, 15)
    padded = torch.zeros(1, 3, 12, 16)
    padded[..., :10, :15] = images
    torch.testing.assert_close(model(images)[0], model(padded)[0])


def test_batch_entries_are_independent():
    model = build().eval()
    images = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(model(images)[0][1:2], model(images[1:2])[0])


@pytest.mark.parametrize('channels', [1, 4])
def test_input_channels(channels):
    assert build(in_channels=channels)(torch.randn(2, channels, 8, 8))[0].shape == (2, 32, 2, 2)


# ---------------------------------------------------------------------- what it returns


def test_out_types_are_views_of_the_same_tokens():
    images = torch.randn(2, 3, 8, 12)
    raw_model = build(out_type='raw', out_indices=(0, 2)).eval()
    raw = raw_model(images)
    for out_type, expected in {
        'featmap': [x[:, 1:].transpose(1, 2).reshape(2, 32, 2, 3) for x in raw],
        'avg_featmap': [x[:, 1:].mean(1) for x in raw],
        'last_token': [x[:, -1] for x in raw],
    }.items():
        model = build(out_type=out_type, out_indices=(0, 2)).eval()
        model.load_state_dict(raw_model.state_dict())
        outs = model(images)
        assert len(outs) == 2
        for ours, theirs in zip(outs, expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_final_norm_is_on_the_last_layer_alone_and_switchable():
    images = torch.randn(1, 3, 8, 8)
    normed = build(out_type='raw', out_indices=(0, 1, 2)).eval()
    bare = build(out_type='raw', out_indices=(0, 1, 2), final_norm=False).eval()
    bare.load_state_dict(normed.state_dict(), strict=False)
    with_norm, without = normed(images), bare(images)
    torch.testing.assert_close(with_norm[:2], without[:2])
    torch.testing.assert_close(with_norm[2], normed.norm(without[2]))


def test_negative_out_indices_and_their_order():
    images = torch.randn(1, 3, 8, 8)
    model = build(out_type='raw', out_indices=(-1, 0)).eval()
    assert model.out_indices == (2, 0)
    last, first = model(images)
    model.out_indices = (0, 2)
    torch.testing.assert_close((first, last), model(images))


# ---------------------------------------------------------------------- train and eval mode


def test_rescale_and_drop_path_are_active_in_train_mode_only():
    images = torch.randn(4, 3, 16, 16)
    for kwargs in (dict(rope=dict(rescale=2.0)), dict(rope=dict(rescale=None), drop_path_rate=0.9)):
        model = build(**kwargs)
        model.train()
        assert not torch.equal(model(images)[0], model(images)[0])
        model.eval()
        assert torch.equal(model(images)[0], model(images)[0])
    still = build(rope=dict(rescale=None)).train()
    assert torch.equal(still(images)[0], still(images)[0])


@pytest.mark.parametrize('option', ['shift', 'jitter'])
def test_rope_shift_and_jitter(option):
    model = build(rope={'rescale': None, option: 1.5}).train()
    images = torch.randn(1, 3, 16, 16)
    assert not torch.equal(model(images)[0], model(images)[0])
    plain = build(rope=dict(rescale=None)).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.eval()(images)[0], plain(images)[0])


def test_rescale_is_one_log_uniform_factor_in_half_to_two():
    """Of the first angle, which is 2 pi times the coordinate; the grid's rows lie at -1/2 and 1/2."""
    model = build().train()
    factors = []
    for _ in range(300):
        embed = model.rope.get_embed([2, 2])  # (T, 2 * head_dim), sine first
        sine, cosine = embed[3, 0], embed[3, embed.shape[1] // 2]
        factors.append((torch.atan2(sine, cosine) % (2 * torch.pi) / torch.pi).item())
    factors = torch.tensor(factors)  # modulo 2, which [1/2, 2] does not reach
    assert 0.5 <= factors.min() < 0.55 and 1.8 < factors.max() <= 2
    assert factors.log2().mean().abs() < 0.1


@pytest.mark.parametrize('layer_scale_init', [None, 1e-5])
def test_the_residual_stream_is_fp32_under_autocast(layer_scale_init):
    model = build(layer_scale_init=layer_scale_init, out_type='raw', out_indices=(0, 1)).eval()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert {x.dtype for x in model(torch.randn(1, 3, 8, 8))} == {torch.float32}


def test_rope_carries_position():
    """Equal patches differ in their output only by position, and only with RoPE (bidirectional attention)."""
    images = torch.randn(1, 3, 4, 4).tile(1, 1, 2, 2)
    images[..., :4, :4] += 1
    for rope, differ in ((True, True), (None, False)):
        tokens = build(rope=rope, out_type='raw').eval()(images)[0][0]
        assert ((tokens[2] - tokens[4]).abs().max() > 1e-4) == differ


def test_dropout():
    model = build(drop_rate=0.5, rope=None).train()
    images = torch.randn(1, 3, 8, 8)
    assert not torch.equal(model(images)[0], model(images)[0])


def test_input_masking_replaces_patches_but_not_targets():
    model = build(mask_ratio=0.5, causal=True, rope=None).train()
    images = torch.randn(2, 3, 16, 16)
    seen = []
    model.drop_after_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    _, embeddings = model.predict_next(images)
    masked = (seen[0] == model.mask_token).all(dim=-1)
    assert masked.sum(dim=1).tolist() == [8, 8]
    assert not masked[:, 0].any(), 'BOS is never masked'
    torch.testing.assert_close(embeddings, model.embed(images)[0])
    torch.testing.assert_close(seen[0][~masked], embeddings[~masked])
    model.eval()
    model.predict_next(images)
    torch.testing.assert_close(seen[1], embeddings)


def test_activation_checkpointing_changes_no_gradient():
    kwargs = dict(drop_path_rate=0.3, drop_rate=0.1)
    plain, saving = build(**kwargs), build(**kwargs, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 8, 8)
    runs = {plain: [], saving: []}
    for model, calls in runs.items():
        for i, layer in enumerate(model.layers):
            layer.norm1.register_forward_hook(lambda *_, calls=calls, i=i: calls.append(i))
        torch.manual_seed(3)
        model.train()(images)[0].square().sum().backward()
    assert runs[plain] == [0, 1, 2]
    assert runs[saving] == [0, 1, 2, 2, 1, 0], 'each layer runs again on the way back'
    for ours, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ('kwargs', 'frozen'),
    [
        (dict(), ()),
        (dict(freeze_patch_embed=True), ('patch_embed.',)),
        (dict(frozen_stages=0), ('patch_embed.', 'cls_token')),
        (dict(frozen_stages=2), ('patch_embed.', 'cls_token', 'layers.0.', 'layers.1.')),
        (dict(frozen_stages=3), ('patch_embed.', 'cls_token', 'layers.', 'norm.')),
    ],
)
def test_frozen_parts_stay_frozen_through_train(kwargs, frozen):
    model = build(drop_path_rate=0.5, **kwargs)
    for _ in range(2):
        model.train()
        for name, p in model.named_parameters():
            assert p.requires_grad != name.startswith(frozen or ('nothing',)), name
        for i, layer in enumerate(model.layers):
            assert layer.training == (i >= max(kwargs.get('frozen_stages', 0), 0))
        assert model.patch_embed.training == (not kwargs)
        model.eval()


def test_a_wholly_frozen_backbone_is_deterministic_in_train_mode():
    model = build(frozen_stages=3, drop_path_rate=0.5, drop_rate=0.5).train()
    images = torch.randn(1, 3, 16, 16)
    assert torch.equal(model(images)[0], model(images)[0])


# ---------------------------------------------------------------------- weights


def test_initialisation():
    model = NEPAViT(arch=dict(embed_dims=256, num_layers=1, num_heads=4, feedforward_channels=512), mlp='swiglu')
    model.init_weights()
    for name, p in model.named_parameters():
        if name.endswith('bias'):
            assert p.count_nonzero() == 0, name
        elif 'gamma' in name:
            assert (p == 1e-5).all()
        elif 'norm' in name:
            assert (p == 1).all()
        else:
            assert p.std().item() == pytest.approx(0.02, rel=0.1), name
            assert abs(p.mean().item()) < 0.003


def test_layer_scale_can_be_left_out():
    assert not any('gamma' in n for n, _ in build(layer_scale_init=None).named_parameters())


def test_layer_depth():
    model = build(mask_ratio=0.1)
    depths = {n: model.get_layer_depth('backbone.' + n, 'backbone.') for n, _ in model.named_parameters()}
    assert {n for n, d in depths.items() if d[0] == 0} == {
        'cls_token',
        'mask_token',
        'patch_embed.proj.weight',
        'patch_embed.proj.bias',
    }
    assert all(d == (int(n.split('.')[1]) + 1, 5) for n, d in depths.items() if n.startswith('layers.'))
    assert depths['norm.weight'] == (4, 5)
    assert model.get_layer_depth('decode_head.conv_seg.weight', 'backbone.') == (4, 5)


# ---------------------------------------------------------------------- wrong arguments and inputs


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='giant'), "arch='giant' is unknown; choose one of .*'base'"),
        (dict(arch=dict(embed_dims=32)), 'needs exactly the keys'),
        (dict(arch=TINY | dict(num_heads=3)), 'embed_dims=32 is not divisible by num_heads=3'),
        (dict(arch=TINY | dict(embed_dims=20, num_heads=2)), 'head dimension divisible by 4, got 10'),
        (dict(arch=TINY | dict(num_layers=0)), 'not a positive integer'),
        (dict(qk_norm='rms'), "qk_norm='rms' is unknown"),
        (dict(mlp='relu'), "mlp='relu' is unknown"),
        (dict(out_type='cls_token'), "out_type='cls_token' is unknown"),
        (dict(out_indices=(0, 3)), 'names layer 3, but there are 3 layers'),
        (dict(out_indices=-4), 'names layer -4'),
        (dict(out_indices=()), 'out_indices is empty'),
        (dict(out_indices=None), 'names layer None'),
        (dict(out_indices=True), 'names layer True'),
        (dict(out_indices='01'), "names layer '01'"),
        (dict(arch=5), 'arch=5 is neither a name nor a dict'),
        (dict(frozen_stages=1.5), 'frozen_stages=1.5 is no integer'),
        (dict(drop_rate='0.1'), "drop_rate='0.1' is no number"),
        (dict(drop_rate=None), 'drop_rate=None is no number'),
        (dict(causal='no'), "causal='no' is neither True nor False"),
        (dict(layer_scale_init='a'), "layer_scale_init='a' is neither a number nor None"),
        (dict(rope='yes'), "rope='yes' is neither a dict"),
        (dict(rope=dict(base=0)), 'rope base=0 is no positive number'),
        (dict(patch_size=0), 'patch_size=0 is not a positive integer'),
        (dict(in_channels=0), 'in_channels=0'),
        (dict(frozen_stages=4), 'frozen_stages=4 is no integer from -1'),
        (dict(drop_path_rate=1.0), r'drop_path_rate=1.0 is no number in \[0, 1\)'),
        (dict(mask_ratio=-0.1), 'mask_ratio'),
        (dict(rope=dict(theta=100.0)), r"rope has no option \['theta'\]"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


@pytest.mark.parametrize(
    ('images', 'error', 'message'),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, 'images are torch.uint8'),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), TypeError, 'images are torch.int64'),
        ([torch.zeros(3, 8, 8)], TypeError, 'images are list'),
        (torch.zeros(1, 3, 8, 8).half(), TypeError, 'images are torch.float16, the weights torch.float32'),
        (torch.zeros(1, 4, 8, 8), ValueError, r'shape \(1, 4, 8, 8\); expected \(B, 3, H, W\)'),
        (torch.zeros(3, 8, 8), ValueError, r'shape \(3, 8, 8\)'),
        (torch.zeros(1, 3, 3, 8), ValueError, 'smaller than one patch of 4 x 4'),
    ],
)
def test_wrong_inputs(images, error, message):
    with pytest.raises(error, match=message):
        build()(images)


def test_pretraining_refuses_what_is_not_whole_patches():
    with pytest.raises(ValueError, match='10 x 8 is not whole patches of 4.*for example 8 x 8'):
        build(causal=True).predict_next(torch.zeros(1, 3, 10, 8))


def test_it_copies_and_pickles():
    model = build().eval()
    images = torch.randn(1, 3, 8, 8)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(again(images)[0], model(images)[0])
    maps = pickle.loads(pickle.dumps(model(images)))
    assert isinstance(maps, FeatureMaps) and maps.image_size == (8, 8)


def test_double_precision():
    assert build().double()(torch.randn(1, 3, 8, 8, dtype=torch.float64))[0].dtype == torch.float64


def test_an_ema_of_it():
    model = build()
    average = ExponentialMovingAverage(model, momentum=0.5)
    before = {k: v.clone() for k, v in average.module.state_dict().items()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    average.update_parameters(model)  # the first update copies
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    average.update_parameters(model)
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, before[name] + 1.5)
