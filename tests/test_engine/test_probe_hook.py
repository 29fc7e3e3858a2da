"""ProbeHook: what it logs, and that training does not notice it."""

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODEL_WRAPPERS, RUNNERS
from mmpretrain.structures import DataSample
from torch import nn

from nepa_mm.engine import ProbeHook
from nepa_mm.engine.hooks.probe_hook import kept_random_state
from nepa_mm.evaluation import effective_rank, extract_features, fit_linear_probe, knn_votes, probe_loader, probing

ROOT = Path(__file__).resolve().parents[2]
RUN = itertools.count()
WIDTH = 16


@DATASETS.register_module(force=True)
class ProbeTestImages(torch.utils.data.Dataset):
    """Images of three shades, one a class; augmented by the global random generators."""

    def __init__(self, length=8, augment=False, classes=('dark', 'middle', 'bright')):
        noise = np.random.default_rng(length).integers(0, 120, (length, 3, 16, 16), dtype=np.uint8)
        self.labels = [i % 3 for i in range(length)]
        self.images = torch.from_numpy(noise + np.uint8([60 * i for i in self.labels]).reshape(-1, 1, 1, 1))
        self.augment, self.metainfo = augment, dict(classes=classes)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = self.images[i].float()
        # the probe's images draw numbers too, as a pipeline may
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        return dict(
            inputs=image + noise if self.augment else image, data_samples=DataSample().set_gt_label(self.labels[i])
        )


def hook(**kwargs):
    return dict(
        type='ProbeHook',
        train_dataset=dict(type='ProbeTestImages', length=30),
        val_dataset=dict(type='ProbeTestImages', length=24),
        **(dict(interval=1, k=5, num_workers=0) | kwargs),
    )


def loader(batch_size, sampler=dict(type='DefaultSampler', shuffle=True)):  # noqa: B006
    return dict(
        batch_size=batch_size,
        num_workers=0,
        dataset=dict(type='ProbeTestImages', length=8, augment=True),
        sampler=sampler,
        collate_fn=dict(type='default_collate'),
    )


def build(work_dir, *hooks, **kwargs):
    cfg = dict(
        model=dict(
            type='NEPA',
            backbone=dict(
                type='NEPAViT',
                arch=dict(embed_dims=WIDTH, num_layers=2, num_heads=2, feedforward_channels=32),
                patch_size=4,
                layer_scale_init=0.5,
                drop_path_rate=0.3,  # and RoPE's rescale: both draw numbers in each step
            ),
        ),
        default_scope='mmpretrain',
        work_dir=str(work_dir),
        experiment_name=f'probe-hook-{next(RUN)}',
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        train_dataloader=loader(4),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=list(hooks),
        randomness=dict(seed=0),
    )
    return RUNNERS.build(Config(dict(runner_type='NEPARunner', **(cfg | kwargs))))


def logged(work_dir):
    (file,) = work_dir.rglob('scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_logs_each_layer_under_the_number_of_iterations(tmp_path):
    runner = build(tmp_path, hook(interval=2, linear=True, weight_decays=(1e-3,)))
    runner.train()
    records = [record for record in logged(tmp_path) if 'knn/layer_00' in record]
    assert [record['step'] for record in records] == [0, 4, 6], 'the start, two epochs of two steps, the end'
    kinds, layers = ('knn', 'linear', 'rankme'), ('embed', 'layer_00', 'layer_01')
    names = {f'{kind}/{layer}' for kind in kinds for layer in layers}
    assert set(records[0]) == names | {'step'}
    for name in names:
        assert runner.message_hub.get_scalar(name).current() == records[-1][name]
    assert len({record['rankme/layer_01'] for record in records}) == 3, 'follows the weights'
    assert all(any(r[f'{kind}/layer_01'] > 50 for kind in ('knn', 'linear')) for r in records), 'shades are easy'


def test_scalars_are_those_of_the_probes(tmp_path):
    runner = build(tmp_path, hook(linear=True, weight_decays=(1e-3,), layers=[1], pooling='last', amp=False))
    runner.train()
    last = logged(tmp_path)[-1]

    sets = []
    model = runner.model
    for length in (30, 24):
        dataset = ProbeTestImages(length)
        out = {(1, 'last'): np.empty((length, WIDTH), np.float32)}
        with probing(model.backbone):
            labels = extract_features(
                model.backbone, model.data_preprocessor, probe_loader(dataset, 7, 0), list(out), out
            )
        sets += [torch.from_numpy(out[1, 'last']), torch.from_numpy(labels)]
    x, y, queries, truth = sets
    votes = knn_votes(x, y, queries, 3, ks=(5,))[5]
    logits = fit_linear_probe(x, y, 3, 1e-3)(queries)
    assert last['knn/layer_01'] == pytest.approx(100 * (votes.argmax(1) == truth).double().mean().item())
    assert last['linear/layer_01'] == pytest.approx(100 * (logits.argmax(1) == truth).double().mean().item())
    assert last['rankme/layer_01'] == pytest.approx(effective_rank(x), rel=1e-4)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_training_is_the_same_bit_for_bit(tmp_path, by_epoch):
    ema = dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.1)
    loop = dict(type='IterBasedTrainLoop', max_iters=6)
    data = loader(4, dict(type='InfiniteSampler', shuffle=True))
    by_iter = dict(train_cfg=loop, log_processor=dict(by_epoch=False), train_dataloader=data)
    kwargs = {} if by_epoch else by_iter
    runs = []
    for name, hooks in (
        ('without', []),
        ('with', [hook(by_epoch=by_epoch, linear=True, weight_decays=(1e-1,), layers=[1])]),
    ):
        runner = build(tmp_path / name, ema, *hooks, **kwargs)
        runner.train()
        losses = [record['loss'] for record in logged(tmp_path / name) if 'loss' in record]
        state = runner.optim_wrapper.state_dict()['state']
        draws = random.random(), np.random.rand(), torch.rand(()).item()
        runs.append((runner.model, state, losses, draws))
    (plain, plain_state, plain_losses, plain_draws), (probed, probed_state, losses, draws) = runs
    assert len(losses) == 6 and losses == plain_losses
    assert draws == plain_draws, 'the random generators stand where they stood'
    for name, weight in plain.state_dict().items():
        assert torch.equal(probed.state_dict()[name], weight), name
    for key, values in plain_state.items():
        assert all(torch.equal(value, probed_state[key][what]) for what, value in values.items())


def test_gradients_and_modes_are_left_alone(tmp_path):
    runner = build(tmp_path, hook())
    runner.train()
    model = runner.model
    (probe,) = (h for h in runner.hooks if isinstance(h, ProbeHook))
    model.train()
    model.backbone.layers[0].eval()
    modes = [module.training for module in model.modules()]
    loss = model.loss(torch.randn(2, 3, 16, 16))['loss']
    loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    probe.probe(model)
    assert grads and all(torch.equal(model.get_parameter(name).grad, grad) for name, grad in grads.items())
    assert [module.training for module in model.modules()] == modes


def test_collapse_shows_in_the_rank(tmp_path):
    runner = build(tmp_path, hook())
    runner.train()
    healthy = logged(tmp_path)[-1]['rankme/layer_01']
    with torch.no_grad():
        for module in runner.model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.zero_()
    (probe,) = (h for h in runner.hooks if isinstance(h, ProbeHook))
    collapsed = probe.probe(runner.model)
    assert healthy > 1.5
    assert collapsed['rankme/layer_01'] == pytest.approx(1, abs=1e-3)
    assert collapsed['knn/layer_01'] == pytest.approx(100 / 3, abs=1e-6), 'one answer for all'


def test_probes_the_average_if_asked_to(tmp_path):
    ema = dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.01)
    runner = build(tmp_path, ema, hook(weights='ema', at_start=False, interval=3))
    runner.train()
    (probe,) = (h for h in runner.hooks if isinstance(h, ProbeHook))
    average = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook').ema_model.module
    record = {k: v for k, v in logged(tmp_path)[-1].items() if k != 'step'}
    assert record == probe.probe(average) != probe.probe(runner.model)


def test_attention_can_be_chosen(tmp_path):
    runner = build(tmp_path, hook(causal=False, pooling='bos'))
    assert runner.model.backbone.causal
    runner.train()
    assert runner.model.backbone.causal
    assert len({v for k, v in logged(tmp_path)[-1].items() if k.startswith('rankme')}) == 3


@pytest.mark.parametrize(
    ('wrong', 'error'),
    [
        (dict(interval=0), 'interval=0 is not positive'),
        (dict(weights='both'), "weights='both' is unknown; choose one of"),
        (dict(linear=True, weight_decays=()), 'at least one of weight_decays'),
        (dict(weights='ema'), 'the run has no EMAHook'),
        (dict(k=31, at_start=False), 'k=31, but there are 30 training images'),
        (dict(layers=[2]), "neither 'embed' nor one of 0..1"),
        (dict(pooling='bos'), 'the same for every image under causal attention'),
        (
            dict(val_dataset=dict(type='ProbeTestImages', classes=('dark', 'bright'))),
            r"\['middle'\] only in the training set",
        ),
    ],
)
def test_wrong_settings_are_told_before_the_first_step(tmp_path, wrong, error):
    with pytest.raises(ValueError, match=error):
        build(tmp_path, dict(hook()) | wrong).train()
    assert not any('loss' in record for path in tmp_path.rglob('scalars.json') for record in [path.read_text()])


def test_a_run_by_iterations_needs_an_interval_in_iterations(tmp_path):
    with pytest.raises(ValueError, match='the run counts iterations; set by_epoch=False'):
        build(tmp_path, hook(), train_cfg=dict(type='IterBasedTrainLoop', max_iters=2)).train()


def test_weights_spread_over_processes_are_refused():
    class Sharded(nn.Module):
        pass

    MODEL_WRAPPERS.register_module(module=Sharded, force=True)
    probe = ProbeHook(dict(), dict())
    with pytest.raises(ValueError, match='Sharded spreads the weights over processes'):
        probe._model(type('Runner', (), dict(model=Sharded())))
    MODEL_WRAPPERS.module_dict.pop('Sharded')


def test_kept_random_state():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = draw()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    with pytest.raises(RuntimeError, match='x'), kept_random_state():
        draw()
        raise RuntimeError('x')
    assert draw() == expected


TWO_PROCESSES = """
import sys
import torch
from pathlib import Path
from mmengine.dist import get_rank
from tests.test_engine.test_probe_hook import build, hook, loader, logged

folder = Path(sys.argv[1])
kwargs = dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='gloo')), train_dataloader=loader(2))
plain = build(folder / 'without', **kwargs)
plain.train()
probed = build(folder / 'with', hook(), **kwargs)
probed.train()
weights = probed.model.state_dict()
assert all(torch.equal(weights[name], weight) for name, weight in plain.model.state_dict().items())
if get_rank() == 0:
    records = [record for record in logged(folder / 'with') if 'knn/layer_00' in record]
    assert [record['step'] for record in records] == [0, 2, 4, 6], records
    single = next(h for h in probed.hooks if type(h).__name__ == 'ProbeHook').probe(probed.model.module)
    assert {k: v for k, v in records[-1].items() if k != 'step'} == single
print('the same on rank', get_rank())
"""


@pytest.mark.slow
def test_two_processes_train_on_after_one_has_probed(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(TWO_PROCESSES)
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', script, tmp_path],
        env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES=''),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert 'the same on rank 0' in done.stdout and 'the same on rank 1' in done.stdout
