"""AutocastOptimWrapper: bfloat16 or float16 forward, float32 everything else."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn
from torch.nn import functional as F

from nepa_mm.engine import AutocastOptimWrapper

IMAGES = torch.linspace(-1, 1, 8 * 6).reshape(8, 6)
LABELS = torch.arange(8) // 3


def build(optimizer=torch.optim.AdamW, **kwargs):
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = optimizer(model.parameters(), lr=0.1)
    return model, AutocastOptimWrapper(optimizer=optimizer, **kwargs)


def step(model, wrapper, images=IMAGES, labels=LABELS):
    with wrapper.optim_context(model):
        logits = model(images)
    wrapper.update_params(F.cross_entropy(logits.float(), labels))
    return logits


def test_built_by_name_from_the_root_registry():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    wrapper = OPTIM_WRAPPERS.build(dict(type='AutocastOptimWrapper', optimizer=optimizer))
    assert type(wrapper) is AutocastOptimWrapper
    assert wrapper.cast_dtype is torch.bfloat16


def test_forward_is_bfloat16_and_weights_and_state_stay_float32():
    model, wrapper = build()
    before = model.weight.detach().clone()
    logits = step(model, wrapper)
    assert logits.dtype is torch.bfloat16
    assert not torch.is_autocast_enabled('cpu')  # the context ends with the forward
    assert model.weight.dtype is torch.float32
    assert all(s['exp_avg'].dtype is torch.float32 for s in wrapper.optimizer.state.values())
    # AdamW's first step moves each weight by the lr, but for weight decay
    assert (model.weight - before).abs().mean().item() == pytest.approx(0.1, rel=0.05)


def test_loss_falls():
    model, wrapper = build()
    losses = [F.cross_entropy(step(model, wrapper).float(), LABELS).item() for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]


def test_accumulation_updates_every_second_time_with_the_mean_gradient():
    model, wrapper = build(torch.optim.SGD, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    before = model.weight.detach().clone()
    step(model, wrapper, IMAGES[:4], LABELS[:4])
    assert torch.equal(model.weight, before)
    step(model, wrapper, IMAGES[4:], LABELS[4:])
    whole, reference = build(torch.optim.SGD)
    step(whole, reference)
    torch.testing.assert_close(model.weight, whole.weight, atol=1e-3, rtol=0)
    assert not torch.equal(model.weight, before)


def test_gradients_are_clipped():
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    wrapper = AutocastOptimWrapper(optimizer=optimizer, clip_grad=dict(max_norm=0.01))
    before = [p.detach().clone() for p in model.parameters()]
    step(model, wrapper)
    moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_state_dict_round_trip():
    model, wrapper = build()
    step(model, wrapper)
    twin, other = build()
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    step(model, wrapper)
    step(twin, other)
    assert torch.equal(model.weight, twin.weight)


def test_state_passes_between_precisions():
    model, wrapper = build()
    step(model, wrapper)
    plain = OptimWrapper(torch.optim.AdamW(nn.Linear(6, 3).parameters(), lr=0.5))
    plain.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    assert plain.optimizer.param_groups[0]['lr'] == 0.1
    # AmpOptimWrapper's state has a loss scaler besides
    state = copy.deepcopy(wrapper.state_dict())
    state['loss_scaler'] = dict(scale=65536.0)
    wrapper.load_state_dict(state)
    assert [int(s['step']) for s in wrapper.optimizer.state.values()] == [1, 1]


@pytest.mark.parametrize('dtype', ['float16', torch.float16])
def test_float16_scales_the_loss_and_steps_as_if_it_did_not(dtype):
    model, wrapper = build(torch.optim.SGD, dtype=dtype, clip_grad=dict(max_norm=0.5))
    plain, reference = build(torch.optim.SGD, clip_grad=dict(max_norm=0.5))
    assert step(model, wrapper).dtype is torch.float16
    step(plain, reference)
    assert wrapper.last_update.scale.item() == 2.0**16
    assert wrapper.last_update.skipped.item() == 0
    assert wrapper.last_update.grad_norm.item() == pytest.approx(reference.last_update.grad_norm.item(), rel=1e-2)
    torch.testing.assert_close(model.weight, plain.weight, atol=1e-3, rtol=0)


@pytest.mark.parametrize('fused', [False, True])
def test_float16_leaves_out_what_overflows_until_the_scale_fits(fused):
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    wrapper = AutocastOptimWrapper(dtype='float16', loss_scale=dict(init_scale=2.0**127), optimizer=optimizer)
    before = model.weight.detach().clone()
    scales = []
    for _ in range(200):
        step(model, wrapper, IMAGES * 100)
        scales.append(wrapper.last_update.scale.item())
        if not wrapper.last_update.skipped:
            break
        assert torch.equal(model.weight, before)
    # The first scale at which the gradient (of the loss over all images, in float16) stays below 65504.
    assert scales == [2.0 ** (127 - i) for i in range(len(scales))]
    assert len(scales) > 100
    assert not torch.equal(model.weight, before)
    assert {int(s['step']) for s in optimizer.state.values()} == {1}


def test_a_bad_loss_leaves_the_scale_and_its_growth():
    """One NaN in three updates: the scale doubles after every four good ones, as without it."""
    model, wrapper = build(torch.optim.SGD, dtype='float16', loss_scale=dict(init_scale=8.0, growth_interval=4))
    scales, bad = [], []
    for i in range(12):
        step(model, wrapper, torch.full_like(IMAGES, float('nan')) if i % 3 == 2 else IMAGES)
        scales.append(wrapper.last_update.scale.item())
        bad.append((wrapper.last_update.skipped.item(), wrapper.last_update.bad_losses.item()))
    assert scales == [8] * 5 + [16] * 6 + [32]
    assert bad == [(0, 0), (0, 0), (1, 1)] * 4
    assert wrapper.loss_scaler.get_scale() == 32


def test_a_bad_loss_of_another_process_leaves_the_scale_too(monkeypatch):
    model, wrapper = build(torch.optim.SGD, dtype='float16', loss_scale=dict(init_scale=8.0))
    monkeypatch.setattr('nepa_mm.engine.optim_wrapper.all_reduce', lambda tensor: tensor.add_(1))
    model.weight.register_hook(lambda grad: grad * float('nan'))  # what the reduced gradients then are
    step(model, wrapper)
    assert (wrapper.last_update.skipped.item(), wrapper.last_update.bad_losses.item()) == (1, 1)
    assert wrapper.loss_scaler.get_scale() == 8


def test_bad_losses_of_accumulated_parts_are_counted_once():
    model, wrapper = build(torch.optim.SGD, dtype='float16', accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 8)
    bad = torch.full_like(IMAGES, float('inf'))
    seen = []
    for images in (bad, IMAGES, bad, bad, IMAGES, IMAGES):
        step(model, wrapper, images)
        seen.append(wrapper.last_update and wrapper.last_update.bad_losses.item())
    assert seen == [None, 1, 1, 2, 2, 0]


@pytest.mark.parametrize(('start', 'end'), [(4.0, 1.0), (0.5, 0.5)])
def test_the_scale_stays_where_gradients_underflow_no_more(start, end):
    """With a gradient that no scale makes finite."""
    model, wrapper = build(torch.optim.SGD, dtype='float16', loss_scale=dict(init_scale=start))
    model.weight.register_hook(lambda grad: grad * float('inf'))
    for _ in range(5):
        step(model, wrapper)
        assert (wrapper.last_update.skipped.item(), wrapper.last_update.bad_losses.item()) == (1, 0)
    assert wrapper.loss_scaler.get_scale() == end


def test_the_state_of_the_scaler_is_saved_and_loaded():
    model, wrapper = build(dtype='float16', loss_scale=dict(init_scale=64.0, growth_interval=2))
    step(model, wrapper)
    _, twin = build(dtype='float16')
    twin.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    assert twin.loss_scaler.state_dict() == wrapper.loss_scaler.state_dict()
    step(model, wrapper)
    assert wrapper.loss_scaler.get_scale() == 128.0


def test_other_precisions_are_sent_elsewhere():
    with pytest.raises(ValueError, match="got 'float32'; for float32 use type='FiniteOptimWrapper'"):
        build(dtype='float32')
    with pytest.raises(ValueError, match='bfloat16 needs no loss scaler'):
        build(loss_scale=dict(init_scale=2.0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_forward_is_bfloat16_on_a_gpu():
    model = nn.Linear(6, 3).cuda()
    wrapper = AutocastOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    logits = step(model, wrapper, IMAGES.cuda(), LABELS.cuda())
    assert logits.dtype is torch.bfloat16
    assert model.weight.grad is None or model.weight.grad.dtype is torch.float32


def test_a_model_on_the_cpu_is_autocast_on_the_cpu():
    model, wrapper = build()
    with wrapper.optim_context(model):
        assert torch.is_autocast_enabled('cpu')
        assert torch.get_autocast_dtype('cpu') is torch.bfloat16
