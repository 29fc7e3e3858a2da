"""Fused kernels: what the configs ask for, with the steps of the plain ones, and kept when a run goes on."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from nepa_mm.engine import AutocastOptimWrapper, FiniteOptimWrapper

SCHEDULES = sorted((Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'schedules').glob('*.py'))


def build(wrapper=FiniteOptimWrapper, **kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))
    groups = [dict(params=[p for p in model.parameters() if (p.ndim > 1) is decayed]) for decayed in (True, False)]
    groups[1]['weight_decay'] = 0.0
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.05, **kwargs)
    return model, wrapper(optimizer=optimizer, clip_grad=dict(max_norm=1.0))


def train(model, wrapper, steps=5):
    torch.manual_seed(1)
    for _ in range(steps):
        wrapper.update_params(model(torch.randn(8, 6)).square().mean())
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize('path', SCHEDULES, ids=lambda p: p.stem)
def test_every_schedule_steps_with_fused_kernels(path):
    assert Config.fromfile(path).optim_wrapper.optimizer.fused is True


def test_fused_steps_are_the_plain_ones():
    torch.testing.assert_close(train(*build(fused=True)), train(*build(foreach=False)), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize('wrapper', [FiniteOptimWrapper, AutocastOptimWrapper])
def test_the_config_says_which_kernels_not_the_checkpoint(wrapper):
    old_model, old = build(wrapper)
    train(old_model, old)
    model, new = build(wrapper, fused=True)
    model.load_state_dict(old_model.state_dict())
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    groups = new.optimizer.param_groups
    assert [group['fused'] for group in groups] == [True, True]
    assert [group['weight_decay'] for group in groups] == [0.05, 0.0]
    assert {int(state['step']) for state in new.optimizer.state.values()} == {5}
    torch.testing.assert_close(train(model, new), train(old_model, old), atol=1e-7, rtol=1e-6)


def test_another_grouping_is_refused_by_torch():
    _, two = build()
    one = FiniteOptimWrapper(optimizer=torch.optim.AdamW(build()[0].parameters(), lr=1e-2, fused=True))
    with pytest.raises(ValueError, match='different number of parameter groups'):
        one.load_state_dict(two.optimizer.state_dict())
