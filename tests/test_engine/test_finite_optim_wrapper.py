"""FiniteOptimWrapper: an update that is not finite changes nothing, wherever the NaN came from."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from nepa_mm.engine import FiniteOptimWrapper

IMAGES = torch.linspace(-1, 1, 8 * 6).reshape(8, 6)
NAN, INF = float('nan'), float('inf')
OPTIMIZERS = {
    'fused AdamW': lambda params: torch.optim.AdamW(params, lr=0.1, fused=True),
    'AdamW': lambda params: torch.optim.AdamW(params, lr=0.1, fused=False),
    'fused SGD': lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, fused=True),
    'SGD': lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, fused=False),
}


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request):
    return OPTIMIZERS[request.param]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def build(optimizer=OPTIMIZERS['fused AdamW'], wrapper=FiniteOptimWrapper, **kwargs):
    model = network()
    return model, wrapper(optimizer=optimizer(model.parameters()), **kwargs)


def step(model, wrapper, images=IMAGES, change=lambda loss: loss):
    with wrapper.optim_context(model):
        loss = model(images).pow(2).mean()
    wrapper.update_params(change(loss))


def state(model, wrapper):
    """Everything that an update changes."""
    return copy.deepcopy((model.state_dict(), wrapper.optimizer.state_dict()['state']))


def assert_same(one, other, but=()):
    for name, value in one[0].items():
        if name not in but:
            assert torch.equal(value, other[0][name]), name
    for slot, values in one[1].items():
        for name, value in values.items():
            assert value is other[1][slot][name] or torch.equal(value, other[1][slot][name]), (slot, name)


def broken(value):
    images = IMAGES.clone()
    images[3, 2] = value
    return images


@pytest.mark.parametrize('clip', [None, dict(max_norm=0.1), dict(type='value', clip_value=0.01)])
def test_finite_updates_are_those_of_mmengine(optimizer, clip):
    model, wrapper = build(optimizer, clip_grad=copy.copy(clip))
    plain, reference = build(optimizer, OptimWrapper, clip_grad=copy.copy(clip))
    for _ in range(3):
        step(model, wrapper)
        step(plain, reference)
    assert_same(state(model, wrapper), state(plain, reference))
    assert wrapper.num_updates == 3
    assert wrapper.last_update.skipped.item() == 0


@pytest.mark.parametrize('images', [broken(NAN), broken(INF), broken(-INF)])
@pytest.mark.parametrize('clip', [None, dict(max_norm=0.1), dict(type='value', clip_value=0.01)])
def test_an_update_that_is_not_finite_changes_nothing(optimizer, images, clip):
    model, wrapper = build(optimizer, clip_grad=clip)
    step(model, wrapper)
    before = state(model, wrapper)
    step(model, wrapper, images)
    # BatchNorm counts its forward passes; its mean and variance, and with them evaluation, are as before.
    assert_same(before, state(model, wrapper), but=['1.num_batches_tracked'])
    assert wrapper.last_update.skipped.item() == 1
    assert not wrapper.last_update.grad_norm.isfinite()
    step(model, wrapper)
    assert wrapper.last_update.skipped.item() == 0

    untouched, twin = build(optimizer, clip_grad=clip)
    for _ in range(2):
        step(untouched, twin)
    assert_same(state(untouched, twin), state(model, wrapper), but=['1.num_batches_tracked'])


def test_the_first_update_can_be_left_out(optimizer, monkeypatch):
    """Memory that is not set is full of large numbers here."""
    monkeypatch.setattr(torch, 'empty_like', lambda tensor, **kwargs: torch.full_like(tensor, 1e6))
    model, wrapper = build(optimizer)
    step(model, wrapper, broken(NAN))
    assert wrapper.last_update.skipped.item() == 1
    step(model, wrapper, broken(INF))
    for _ in range(2):
        step(model, wrapper)
    untouched, twin = build(optimizer)
    for _ in range(2):
        step(untouched, twin)
    assert_same(state(untouched, twin), state(model, wrapper), but=['1.num_batches_tracked'])


def test_fused_sgd_without_momentum_is_not_waited_for():
    model, wrapper = build(lambda params: torch.optim.SGD(params, lr=0.1, fused=True))
    assert wrapper._skips_on_device(list(model.parameters()))
    step(model, wrapper)
    before = state(model, wrapper)
    step(model, wrapper, broken(NAN))
    assert_same(before, state(model, wrapper), but=['1.num_batches_tracked'])


@pytest.mark.parametrize('value', [NAN, INF])
def test_a_loss_whose_bad_part_has_no_gradient_is_seen(optimizer, value):
    model, wrapper = build(optimizer)
    step(model, wrapper)
    before = state(model, wrapper)
    step(model, wrapper, change=lambda loss: loss + torch.tensor(value))
    assert_same(before, state(model, wrapper), but=['1.num_batches_tracked'])
    assert wrapper.last_update.skipped.item() == 1


def test_a_gradient_that_overflows_under_a_finite_loss_is_seen(optimizer):
    model, wrapper = build(optimizer)
    model[3].weight.register_hook(lambda grad: torch.full_like(grad, INF))
    before = state(model, wrapper)
    step(model, wrapper)
    # (The optimizer may have made its state, empty.)
    for name, value in before[0].items():
        assert name == '1.num_batches_tracked' or torch.equal(value, model.state_dict()[name])
    finite = wrapper.last_update.norms.isfinite().tolist()
    names = [name for name, _ in model.named_parameters()]
    assert [name for name, ok in zip(names, finite, strict=True) if not ok] == ['3.weight']
    assert [id(p) for p in wrapper.last_update.params] == [id(p) for p in model.parameters()]


@pytest.mark.parametrize('bad', [0, 1, 2])
def test_one_bad_part_leaves_out_the_whole_accumulated_update(optimizer, bad):
    model, wrapper = build(optimizer, accumulative_counts=3)
    wrapper.initialize_count_status(model, 0, 9)
    for _ in range(3):
        step(model, wrapper)
    before = state(model, wrapper)
    for part in range(3):
        step(model, wrapper, broken(NAN) if part == bad else IMAGES)
    assert_same(before, state(model, wrapper), but=['1.num_batches_tracked'])
    assert (wrapper.num_updates, wrapper.last_update.skipped.item()) == (2, 1)
    for _ in range(3):
        step(model, wrapper)
    assert (wrapper.num_updates, wrapper.last_update.skipped.item()) == (3, 0)
    assert not torch.equal(before[0]['0.weight'], model[0].weight)


def test_fused_optimizers_are_not_waited_for(monkeypatch):
    def refuse(self):
        raise AssertionError('the number is read in Python')

    model, wrapper = build(clip_grad=dict(max_norm=1.0))
    monkeypatch.setattr(wrapper.message_hub, 'update_scalar', lambda *args: None)
    for name in ('item', '__bool__', '__float__', 'tolist', 'cpu', 'numpy'):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    step(model, wrapper)
    step(model, wrapper, broken(NAN))
    monkeypatch.undo()
    assert wrapper.last_update.skipped.item() == 1
    assert {int(s['step']) for s in wrapper.optimizer.state.values()} == {1}


def test_a_state_saved_without_fusing_goes_on_fused():
    model, wrapper = build(OPTIMIZERS['AdamW'])
    step(model, wrapper)
    twin, fused = build()
    twin.load_state_dict(model.state_dict())
    fused.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    for images in (broken(NAN), IMAGES):
        step(model, wrapper, images)
        step(twin, fused, images)
    torch.testing.assert_close(twin.state_dict(), model.state_dict())
    assert [int(s['step']) for s in fused.optimizer.state.values()] == [2] * 6
    fused.optimizer.param_groups[0]['fused'] = False  # what a group says goes
    step(twin, fused, broken(NAN))
    assert [int(s['step']) for s in fused.optimizer.state.values()] == [2] * 6


def test_the_norm_is_the_one_before_clipping():
    model, wrapper = build(clip_grad=dict(max_norm=0.01))
    model(IMAGES).pow(2).mean().backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    wrapper.zero_grad()
    model.load_state_dict(network().state_dict())
    step(model, wrapper)
    assert wrapper.last_update.grad_norm.item() == pytest.approx(expected.norm().item(), rel=1e-5)
    assert wrapper.message_hub.get_scalar('train/grad_norm').current() == pytest.approx(
        expected.norm().item(), rel=1e-5
    )


def test_the_norm_of_infinite_order_works_too():
    model, wrapper = build(clip_grad=dict(max_norm=0.01, norm_type='inf'))
    plain, reference = build(wrapper=OptimWrapper, clip_grad=dict(max_norm=0.01, norm_type='inf'))
    step(model, wrapper)
    step(plain, reference)
    assert_same(state(model, wrapper), state(plain, reference))


def test_layers_without_gradient_are_left_alone():
    model, wrapper = build()
    model[0].requires_grad_(False)
    step(model, wrapper)
    assert len(wrapper.last_update.params) == 4


def test_built_by_name_from_the_root_registry():
    cfg = dict(type='FiniteOptimWrapper', optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0))
    assert type(OPTIM_WRAPPERS.build(cfg)) is FiniteOptimWrapper


@pytest.mark.slow
def test_sharded_models_leave_out_the_same():
    """Two processes, of which one meets NaN; the shards take the steps of a whole model that has not met it."""
    words = [Path(sys.executable).parent / 'torchrun', '--standalone', '--nproc_per_node=2', '-m', __name__]
    done = subprocess.run(words, capture_output=True, text=True, timeout=170, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_first_fsdp_is_refused(monkeypatch):
    class Sharded(nn.Linear):
        pass

    _, wrapper = build()
    monkeypatch.setattr('nepa_mm.engine.finite_optim_wrapper.FullyShardedDataParallel', Sharded)
    with pytest.raises(
        TypeError, match='Sharded shards with FSDP1, where each process would clip by the norm of its own'
    ):
        wrapper.optim_context(Sharded(2, 2)).__enter__()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_gpu_is_not_waited_for(monkeypatch):
    model = network().cuda()
    wrapper = FiniteOptimWrapper(
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.1, fused=True), clip_grad=dict(max_norm=1.0)
    )
    monkeypatch.setattr(wrapper.message_hub, 'update_scalar', lambda *args: None)
    good, bad = IMAGES.cuda(), broken(NAN).cuda()
    step(model, wrapper, good)
    before = state(model, wrapper)
    torch.cuda.set_sync_debug_mode('error')
    try:
        step(model, wrapper, bad)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert_same(before, state(model, wrapper), but=['1.num_batches_tracked'])
    assert wrapper.last_update.skipped.item() == 1
    step(model, wrapper, good)
    assert not torch.equal(before[0]['0.weight'], model[0].weight)


def in_two_processes():
    """Compare a sharded model, whose third batch is NaN in the first process, with a whole one."""
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group('gloo')
    mesh = distributed.init_device_mesh('cpu', (2,))
    # A step of AdamW has the size of lr, 0.1, whatever the gradient is: it makes rounding larger.
    for optimizer, tolerance in (('SGD', 1e-6), ('fused AdamW', 1e-2)):
        models = network(), network()
        fully_shard(models[0][3], mesh=mesh)
        fully_shard(models[0], mesh=mesh)
        wrappers = [
            FiniteOptimWrapper(optimizer=OPTIMIZERS[optimizer](m.parameters()), clip_grad=dict(max_norm=0.1))
            for m in models
        ]
        for i in range(5):
            bad = i == 2
            step(models[0], wrappers[0], broken(NAN) if bad and distributed.get_rank() == 0 else IMAGES)
            assert wrappers[0].last_update.skipped.item() == bad
            if not bad:
                step(models[1], wrappers[1])
                norms = [wrapper.last_update.grad_norm.item() for wrapper in wrappers]
                assert norms[0] == pytest.approx(norms[1], rel=1e-5)
        whole = dict(models[1].named_parameters())
        for name, part in models[0].named_parameters():
            got = part.full_tensor()
            if name != '0.bias' or tolerance < 1e-3:  # of whose gradient BatchNorm leaves nothing but rounding
                torch.testing.assert_close(got, whole[name].data, atol=tolerance, rtol=0)
        assert models[0][1].running_mean.isfinite().all()
    distributed.destroy_process_group()


if __name__ == '__main__':
    in_two_processes()
