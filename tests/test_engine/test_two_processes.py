"""Two processes train as one does on the same global batch, whether each holds the model (DDP) or they share it (FSDP).

With gradient accumulation and without, with EMA, layer decay, clipping and a schedule; in float32 to 1e-6.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, RUNNERS
from torch import nn

from nepa_mm.checkpoints import CheckpointError, read_checkpoint
from nepa_mm.engine import NEPAFlexibleRunner
from nepa_mm.engine.shards import gather, layer_units, shard_like
from tests.test_engine import two_processes
from tests.test_engine.two_processes import SHARDED, config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Folder of the work directories of all runs of two processes, and what they logged."""
    folder = tmp_path_factory.mktemp('two')
    environment = os.environ | dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', PYTHONPATH=str(ROOT))
    words = [Path(sys.executable).parent / 'torchrun', '--standalone', '--nproc_per_node=2', two_processes.__file__]
    done = subprocess.run([*words, folder], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder, done.stdout + done.stderr


def last(folder, name):
    return read_checkpoint(folder / name / 'epoch_3.pth')


def largest_difference(got, expected):
    """Of the raw weights, their average and the optimizer's state; all else that is saved is the same."""
    largest = {}
    for key in ('state_dict', 'ema_state_dict')[: 1 + ('ema_state_dict' in expected)]:
        assert list(got[key]) == list(expected[key])
        largest[key] = max((got[key][n].float() - v.float()).abs().max().item() for n, v in expected[key].items())
    optimizers = got['optimizer'], expected['optimizer']
    assert optimizers[0]['param_groups'] == optimizers[1]['param_groups']
    assert optimizers[0]['state'].keys() == optimizers[1]['state'].keys()
    for i, state in optimizers[1]['state'].items():
        for name, value in state.items():
            difference = (optimizers[0]['state'][i][name] - value).abs().max().item()
            largest[name] = max(largest.get(name, 0), difference)
    assert got['param_schedulers'] == expected['param_schedulers']
    assert got.keys() == expected.keys() and got['meta'].keys() == expected['meta'].keys()
    return largest


def test_the_runs_move_their_weights(runs):
    first, after = read_checkpoint(runs[0] / 'ddp/epoch_1.pth'), last(runs[0], 'ddp')
    moved = {n: (after['state_dict'][n] - v).abs().max().item() for n, v in first['state_dict'].items()}
    assert min(moved.values()) > 2e-5  # of the averages, every single one; the tests below allow 1e-6


# ---------------------------------------------------------------- each holds the model


@pytest.fixture
def train_alone(tmp_path):
    def train(name, **changes):
        RUNNERS.build(config(tmp_path / name, 'none', **changes)).train()
        return last(tmp_path, name)

    return train


@pytest.mark.parametrize(
    ('name', 'changes'),
    [('ddp', {}), ('ddp_accum1', dict(accumulation=1)), ('ddp_no_ema', dict(ema=False))],
    ids=['accumulation', 'no accumulation', 'no average'],
)
def test_ddp_equals_one_process(runs, train_alone, name, changes):
    """``DefaultSampler`` deals samples out like cards: two processes have 0, 2 and 1, 3 of the same batch."""
    assert max(largest_difference(last(runs[0], name), train_alone(name, batch=4, **changes)).values()) < 1e-6


def test_accumulation_equals_a_batch_in_one_part(runs, train_alone):
    whole = train_alone('whole', batch=8, accumulation=1, auto_scale_lr=dict(base_batch_size=8))
    accumulated = last(runs[0], 'ddp')
    assert accumulated['meta']['iter'] == 2 * whole['meta']['iter'] == 6
    # The raw weights; the average of an accumulating run takes in an update one iteration later.
    for name, value in whole['ema_state_dict'].items():
        if name != 'steps':
            torch.testing.assert_close(accumulated['ema_state_dict'][name], value, atol=1e-6, rtol=0, msg=name)


# ---------------------------------------------------------------- they share the model


def test_sharding_equals_ddp_without_accumulation(runs):
    assert max(largest_difference(last(runs[0], 'sharded_accum1'), last(runs[0], 'ddp_accum1')).values()) < 1e-6


@pytest.mark.parametrize('name', ['sharded', 'checkpointed', 'resumed', 'resumed_by_ddp', 'resumed_from_ddp'])
def test_sharding_equals_ddp(runs, name):
    """And with activation checkpointing, and resumed from either kind of run by either."""
    assert max(largest_difference(last(runs[0], name), last(runs[0], 'ddp')).values()) < 1e-6


@pytest.mark.parametrize('name', ['ddp_compiled', 'sharded_compiled'])
def test_compiled_equals_not_compiled(runs, name):
    assert max(largest_difference(last(runs[0], name), last(runs[0], 'ddp')).values()) < 1e-6


def test_sharding_equals_ddp_in_bfloat16(runs):
    assert max(largest_difference(last(runs[0], 'sharded_bf16'), last(runs[0], 'ddp_bf16')).values()) < 2e-3


def test_decay_holds_for_matrices_alone(runs):
    """What FSDP1 with flat parameters would lose."""
    groups = last(runs[0], 'sharded')['optimizer']['param_groups']
    decays = {name: group['weight_decay'] for group in groups for name in group['param_names']}
    assert decays['backbone.layers.0.attn.proj.weight'] == 0.05
    assert decays['backbone.layers.0.attn.proj.bias'] == decays['backbone.layers.0.norm1.weight'] == 0


def test_each_process_holds_its_part(runs):
    weights = last(runs[0], 'ddp')['state_dict'].values()
    held = [int((runs[0] / f'held_{rank}').read_text()) for rank in (0, 1)]
    assert sum(held) == sum(w.numel() for w in weights)
    assert max(held) < 0.55 * sum(held)
    assert f'{sum(held):,} parameters in 3 layers and the rest, sharded over 2 processes' in runs[1]


def test_load_from_enters_through_the_checked_loader(runs):
    folder, log = runs
    expected = read_checkpoint(folder / 'sharded/epoch_1.pth')
    raw = {name.removeprefix('module.'): v for name, v in expected['ema_state_dict'].items() if name != 'steps'}
    for rank in (0, 1):
        started = torch.load(folder / f'started_{rank}')
        assert started.keys() == raw.keys()
        assert all(torch.equal(started[name], value) for name, value in raw.items())
    assert f'Loaded {len(raw)} tensors from {folder}/sharded/epoch_1.pth (raw weights).' in log
    assert 'resumed epoch: 1, iter: 2' in log


# ---------------------------------------------------------------- NEPAFlexibleRunner in one process


@pytest.fixture
def build(tmp_path):
    def build(name, **changes):
        return RUNNERS.build(config(tmp_path / name, 'none', batch=4, **(SHARDED | changes)))

    return build


def test_one_process_without_a_launcher_trains_unsharded(runs, build, tmp_path):
    runner = build('one')
    assert type(runner) is NEPAFlexibleRunner
    runner.train()
    assert type(runner.model.backbone.cls_token) is nn.Parameter
    difference = largest_difference(last(tmp_path, 'one'), last(runs[0], 'ddp'))
    assert max(difference.values()) < 1e-6


@pytest.mark.parametrize('key', ['load_from', 'init_cfg'])
def test_a_file_that_does_not_fit_is_refused(build, tmp_path, key):
    torch.save(dict(state_dict={'garbage': torch.zeros(1)}), tmp_path / 'garbage.pth')
    if key == 'load_from':
        # Without an EMA hook, which would load, and refuse, before the runner does.
        runner = build('refused', load_from=str(tmp_path / 'garbage.pth'), custom_hooks=[])
    else:
        runner = build('refused_init')
        runner.model.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'garbage.pth'))
    with pytest.raises(CheckpointError, match='Nothing of .*garbage.pth fits the model'):
        runner.train()


def test_a_strategy_that_loads_unchecked_is_refused(build):
    with pytest.raises(ValueError, match='SingleDeviceStrategy, which loads checkpoints unchecked'):
        build('other', strategy=dict(type='SingleDeviceStrategy'))


def test_a_hook_that_needs_the_whole_backbone_is_refused(build):
    with pytest.raises(ValueError, match='ProbeHook calls the backbone on its own'):
        build('probed', custom_hooks=[dict(type='ProbeHook', train_dataset=dict(), val_dataset=dict())])


def test_units_are_the_layers():
    model = MODELS.build(config(Path('x')).model)
    assert layer_units(model) == list(model.backbone.layers)
    assert layer_units(nn.Sequential(nn.Linear(1, 1))) == []


def test_what_is_no_shard_stays():
    whole = dict(a=torch.ones(2), b=[torch.zeros(1), 3], c=None)
    gathered = gather(whole)
    assert torch.equal(gathered['a'], whole['a']) and gathered['b'][1] == 3 and gathered['c'] is None
    assert shard_like(whole['a'], torch.zeros(2)) is whole['a']
