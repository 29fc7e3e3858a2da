"""ForeachEMA: the average that mmengine keeps, bit for bit."""

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nepa_mm.engine import ForeachEMA


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))


def steps(model, *averages, count=6):
    """Train on noise, and average after each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(count):
        model(torch.randn(4, 5)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        for average in averages:
            average.update_parameters(model)


@pytest.mark.parametrize('options', [dict(), dict(interval=2), dict(interval=4), dict(update_buffers=True)], ids=str)
def test_equal_to_mmengine(options):
    model = build_model()
    theirs = ExponentialMovingAverage(model, momentum=0.1, **options)
    ours = MODELS.build(dict(type='ForeachEMA', momentum=0.1, **options), default_args=dict(model=model))
    steps(model, theirs, ours)
    states = [average.state_dict() for average in (ours, theirs)]
    assert list(states[0]) == list(states[1])
    for name, tensor in states[1].items():
        assert torch.equal(states[0][name], tensor), name
    assert not torch.equal(states[0]['module.0.weight'], model[0].weight)


def test_goes_on_from_an_average_of_mmengine():
    model = build_model()
    theirs = ExponentialMovingAverage(model, momentum=0.1, interval=2)
    steps(model, theirs, count=3)
    ours = ForeachEMA(model, momentum=0.1, interval=2)
    ours.load_state_dict(theirs.state_dict())
    steps(model, theirs, ours, count=3)
    assert ours.steps == theirs.steps == 6
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_one_call_for_all_parameters():
    class Calls(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names.append(func._schema.name)
            return func(*args, **(kwargs or {}))

    model = build_model()
    average = ForeachEMA(model, momentum=0.1)
    steps(model, average, count=1)
    with Calls() as calls:
        average.update_parameters(model)
    names = [name for name in calls.names if name != 'aten::detach']
    assert names == ['aten::_foreach_lerp_', 'aten::_foreach_copy_', 'aten::add_']


def test_the_momentum_may_be_a_tensor():
    """Which a device decides on: 0 where an update of the weights was left out."""
    model = build_model()
    average, reference = ForeachEMA(model, momentum=0.1), ForeachEMA(model, momentum=0.1)
    steps(model, average, reference, count=2)
    steps(model)
    before = [p.clone() for p in average.module.parameters()]
    average.momentum = torch.tensor(0.0)
    average.update_parameters(model)
    for a, b in zip(average.module.parameters(), before, strict=True):
        assert torch.equal(a, b)
    average.momentum = torch.tensor(0.1)
    average.update_parameters(model)
    reference.update_parameters(model)
    for a, b in zip(average.module.parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.equal(average.module[0].weight, before[0])
