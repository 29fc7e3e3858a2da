"""BadNumbersHook: what NaN does to a run, to its averages and to its checkpoints."""

import itertools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, FUNCTIONS, HOOKS, MODELS
from mmengine.structures import BaseDataElement
from torch import nn

from nepa_mm.checkpoints import read_checkpoint
from nepa_mm.engine import BadNumbersError, BadNumbersHook, NEPARunner
from tests.test_configs import LEAFS

RUN = itertools.count()
NAN, INF = float('nan'), float('inf')


@DATASETS.register_module(force=True)
class BadNumbersImages(torch.utils.data.Dataset):
    """Images that know their file; some are NaN."""

    def __init__(self, length=12, bad=()):
        self.length, self.bad = length, bad

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        value = NAN if index in self.bad else (index + 1) / 12
        image = torch.full((4,), value) * torch.tensor([1.0, -1.0, 0.5, 2.0])
        return dict(inputs=image, data_samples=BaseDataElement(metainfo=dict(img_path=f'images/{index}.jpg')))


@FUNCTIONS.register_module(force=True)
def bad_numbers_collate(items):
    """Images stacked, samples in a list."""
    return dict(inputs=torch.stack([i['inputs'] for i in items]), data_samples=[i['data_samples'] for i in items])


@MODELS.register_module(force=True)
class BadNumbersModel(BaseModel):
    """A backbone and a head, as the loader knows models."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.head = nn.Linear(5, 3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.head(self.backbone(inputs))
        return dict(loss=out.pow(2).mean(), size=out.detach().norm()) if mode == 'loss' else out


@HOOKS.register_module(force=True)
class Spoil(Hook):
    """Writes NaN into a weight, or a larger number than fits into float32, after an iteration."""

    priority = 'HIGH'

    def __init__(self, after):
        self.after = after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.after:
            runner.model.head.weight.data[0, 0] = NAN


@HOOKS.register_module(force=True)
class Trace(Hook):
    """Keeps weights, average and learning rate after every iteration."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.weights, self.averages, self.lr = [], [], []
        self.average = next((h.ema_model for h in runner.hooks if hasattr(h, 'ema_model')), None)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.weights.append(runner.model.head.weight.detach().clone())
        self.lr.append(runner.optim_wrapper.get_lr()['lr'][0])
        if self.average is not None:
            self.averages.append((self.average.module.head.weight.clone(), int(self.average.steps)))


def config(work_dir, bad=(), patience=3, hooks=(), **kwargs):
    cfg = dict(
        model=dict(type='BadNumbersModel'),
        work_dir=str(work_dir),
        experiment_name=f'bad-numbers-{next(RUN)}',
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2),
            bad_numbers=dict(type='BadNumbersHook', patience=patience),
        ),
        custom_hooks=[dict(type='Trace'), *hooks],
        train_dataloader=dict(
            batch_size=2,
            dataset=dict(type='BadNumbersImages', bad=bad),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='bad_numbers_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        param_scheduler=dict(type='LinearLR', start_factor=0.5, end=12, by_epoch=False),
        optim_wrapper=dict(
            type='FiniteOptimWrapper',
            optimizer=dict(type='AdamW', lr=0.1, fused=True),
            clip_grad=dict(max_norm=1.0),
        ),
        randomness=dict(seed=0),
    )
    return Config(cfg | kwargs)


def train(work_dir, **kwargs):
    runner = NEPARunner.from_cfg(config(work_dir, **kwargs))
    runner.train()
    return runner, next(h for h in runner.hooks if isinstance(h, Trace))


@pytest.fixture
def warnings(monkeypatch):
    """What mmengine's loggers warn of."""
    texts = []
    original = MMLogger.callHandlers

    def call_handlers(self, record):
        if record.levelno >= logging.WARNING:
            texts.append(record.getMessage())
        original(self, record)

    monkeypatch.setattr(MMLogger, 'callHandlers', call_handlers)
    return texts


def test_a_healthy_run_is_not_changed_and_not_spoken_of(tmp_path, warnings):
    runner, trace = train(tmp_path)
    plain, reference = train(
        tmp_path / 'plain',
        default_hooks=dict(),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1, fused=True), clip_grad=dict(max_norm=1.0)),
    )
    assert len(trace.weights) == len(reference.weights) == 12
    assert all(torch.equal(a, b) for a, b in zip(trace.weights, reference.weights, strict=True))
    assert runner.message_hub.get_info('skipped_updates') is None
    assert not [text for text in warnings if 'left out' in text or 'BadNumbersHook' in text]
    assert not (tmp_path / 'bad_numbers.json').exists()


def test_bad_updates_are_left_out_counted_and_told(tmp_path, warnings):
    # Images 4 and 7: the third and the fourth batch, in both epochs.
    runner, trace = train(tmp_path, bad=(4, 7))
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(trace.weights)]
    assert moved == [True, False, False, True, True, True, True, False, False, True, True]
    assert runner.message_hub.get_info('skipped_updates') == 4
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
    # Schedules go on: the rate of an unbroken run, for the iteration after each.
    assert trace.lr[1:5] == pytest.approx([0.1 * (0.5 + 0.5 * i / 11) for i in (2, 3, 4, 5)])
    told = [text for text in warnings if text.startswith('Iteration ')]
    assert [text.split(':')[0] for text in told] == ['Iteration 3', 'Iteration 4', 'Iteration 9', 'Iteration 10']
    assert 'gradient norm nan, loss nan; bad gradients in 6 of 6 parameters (backbone.0.weight, ' in told[0]
    assert '; images images/4.jpg, images/5.jpg. 1 in a row' in told[0]
    assert told[1].endswith('2 in a row, 2 in all.') and told[2].endswith('1 in a row, 3 in all.')
    assert warnings[-1] == '4 updates of this run were left out: NaN or infinite.'


def test_too_many_in_a_row_end_the_run_and_say_what_was_seen(tmp_path):
    # From the fourth batch on.
    with pytest.raises(BadNumbersError) as error:
        train(tmp_path, bad=(6, 8, 10), train_cfg=dict(by_epoch=True, max_epochs=1), val_cfg=None)
    report = json.loads((tmp_path / 'bad_numbers.json').read_text())
    assert [seen['iteration'] for seen in report['in_a_row']] == [4, 5, 6]
    assert [seen['samples'] for seen in report['in_a_row']] == [
        [f'images/{i}.jpg', f'images/{i + 1}.jpg'] for i in (6, 8, 10)
    ]
    first = report['in_a_row'][0]
    assert first['losses'] == dict(loss=['nan'], size=['nan'])
    assert first['grad_norm'] == 'nan'
    assert first['lr'] == pytest.approx([0.1 * (0.5 + 0.5 * 3 / 11)])
    assert first['parameters_with_bad_gradients'][0] == 'backbone.0.weight'
    assert (first['num_parameters'], report['skipped_updates'], report['parameters_not_finite']) == (6, 3, [])
    # The fourth iteration's checkpoint holds the weights of the third.
    assert report['last_checkpoint'].endswith('iter_4.pth')
    assert '3 updates in a row were NaN or infinite, the last in iteration 6. The weights are finite.' in str(
        error.value
    )
    assert f'What was seen stands in {tmp_path / "bad_numbers.json"}. The last checkpoint is ' in str(error.value)
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == ['iter_2.pth', 'iter_4.pth']
    weights = read_checkpoint(tmp_path / 'iter_4.pth')['state_dict']
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_one_good_update_between_starts_the_count_anew(tmp_path):
    runner, _ = train(tmp_path, bad=(0, 2, 6, 8), train_cfg=dict(by_epoch=True, max_epochs=3))
    assert runner.message_hub.get_info('skipped_updates') == 12


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    before = {}

    def files():
        return {path.name: path.read_bytes() for path in tmp_path.glob('*.pth')}

    @HOOKS.register_module(force=True)
    class Look(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            before.update(files())

    message = (
        r'tensors of the model are NaN or infinite after iteration 6 \(state_dict.head.weight\), so no checkpoint is'
    )
    with pytest.raises(BadNumbersError, match=message):
        train(tmp_path, hooks=[dict(type='Spoil', after=6), dict(type='Look')])
    assert sorted(before) == ['iter_2.pth', 'iter_4.pth']
    assert Path((tmp_path / 'last_checkpoint').read_text()).name == 'iter_4.pth'
    assert files()['iter_4.pth'] == before['iter_4.pth']


@pytest.mark.parametrize('kind', ['mmengine.EMAHook', 'mmpretrain.EMAHook'])
@pytest.mark.parametrize('name', ['head.weight', 'backbone.1.running_var'])
def test_averages_that_are_not_finite_are_never_saved(tmp_path, kind, name):
    @HOOKS.register_module(force=True)
    class SpoilAverage(Hook):
        priority = 'NORMAL'  # after the average has taken in an update

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            (average,) = (h.ema_model for h in runner.hooks if hasattr(h, 'ema_model'))
            if runner.iter + 1 == 6:
                average.module.state_dict()[name][0] = NAN

    message = rf'1 tensors of the model are NaN or infinite after iteration 6 \(average\.{name}\), so no checkpoint is'
    with pytest.raises(BadNumbersError, match=message):
        train(tmp_path, hooks=[dict(type=kind, momentum=0.25, update_buffers=True), dict(type='SpoilAverage')])
    assert Path((tmp_path / 'last_checkpoint').read_text()).name == 'iter_4.pth'
    assert not (tmp_path / 'iter_6.pth').exists()


@MODELS.register_module(force=True)
class BadNumbersMasked(BadNumbersModel):
    """With a buffer that is infinite by design."""

    def __init__(self):
        super().__init__()
        self.register_buffer('mask', torch.full((3, 3), -INF).triu(1))


def test_a_mask_of_infinities_may_be_saved(tmp_path):
    wanted = dict(model=dict(type='BadNumbersMasked'), hooks=[dict(type='EMAHook', momentum=0.25)])
    train(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=1), **wanted)
    runner, _ = train(tmp_path, resume=True, **wanted)
    assert runner.iter == 12
    saved = read_checkpoint(tmp_path / 'iter_12.pth')
    for mask in (saved['state_dict']['mask'], saved['ema_state_dict']['module.mask']):
        assert mask[0].tolist() == [0, -INF, -INF]
    with pytest.raises(BadNumbersError, match=r'\(state_dict.head.weight\)'):
        train(tmp_path / 'spoilt', hooks=[dict(type='Spoil', after=2)], model=wanted['model'])


def test_weights_that_are_not_finite_end_the_run(tmp_path):
    with pytest.raises(BadNumbersError, match=r'1 weights hold NaN or infinity \(head.weight\)'):
        train(
            tmp_path,
            hooks=[dict(type='Spoil', after=2)],
            default_hooks=dict(bad_numbers=dict(type='BadNumbersHook', patience=3), checkpoint=None),
        )
    report = json.loads((tmp_path / 'bad_numbers.json').read_text())
    assert report['parameters_not_finite'] == ['head.weight']
    assert [seen['iteration'] for seen in report['in_a_row']] == [3, 4, 5]


@pytest.mark.parametrize('kind', ['mmengine.EMAHook', 'mmpretrain.EMAHook'])
def test_averages_stay_where_an_update_is_left_out(tmp_path, kind):
    hook = dict(type=kind, momentum=0.25)
    _, trace = train(tmp_path, bad=(4, 7), hooks=[hook], train_cfg=dict(by_epoch=True, max_epochs=1))
    average = trace.weights[0]
    for index, (got, steps) in enumerate(trace.averages):
        if index not in (0, 2, 3):
            average = average.lerp(trace.weights[index], 0.25)
        assert torch.equal(got, average), index
        assert steps == index + 1


def test_averages_every_few_iterations_stay_too(tmp_path):
    """With accumulation the average is taken every `interval` iterations, after the update."""
    saved = []

    @HOOKS.register_module(force=True)
    class Saved(Hook):
        priority = 'LOWEST'

        def before_save_checkpoint(self, runner, checkpoint):
            saved.append({name: value.clone() for name, value in checkpoint['state_dict'].items()})

    _, trace = train(
        tmp_path,
        bad=(4,),
        hooks=[dict(type='EMAHook', momentum=0.25, interval=2), dict(type='Saved')],
        optim_wrapper=dict(type='FiniteOptimWrapper', optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2),
    )
    weights = trace.weights
    average = weights[0]
    for index, (got, _) in enumerate(trace.averages):
        # Updates are made in iterations 2, 4, ...; those of 4 and 10 have a bad half.
        if index and index % 2 == 0 and index not in (4, 10):
            average = average.lerp(weights[index], 0.25)
        assert torch.equal(got, average), index
    # What the bad half did to the statistics of BatchNorm is gone from the average, too: those of before.
    assert len(saved) == 6
    for name in ('backbone.1.running_mean', 'backbone.1.running_var'):
        assert torch.equal(saved[1][name], saved[0][name]) and saved[2][name].isfinite().all()


def test_the_samples_of_all_accumulated_parts_are_named(tmp_path):
    with pytest.raises(BadNumbersError):
        train(
            tmp_path,
            bad=(5,),
            patience=1,
            optim_wrapper=dict(type='FiniteOptimWrapper', optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3),
        )
    seen = json.loads((tmp_path / 'bad_numbers.json').read_text())['in_a_row'][0]
    assert seen['iteration'] == 3
    assert seen['samples'] == [f'images/{i}.jpg' for i in range(6)]
    assert [isinstance(loss, float) for loss in seen['losses']['loss']] == [True, True, False]


def test_what_the_loss_scaler_tries_is_no_bad_number(tmp_path, warnings):
    runner, trace = train(
        tmp_path,
        patience=1,
        optim_wrapper=dict(
            type='AutocastOptimWrapper',
            dtype='float16',
            loss_scale=dict(init_scale=2.0**24),
            optimizer=dict(type='AdamW', lr=0.01, fused=True),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=8),
    )
    overflows = runner.message_hub.get_info('loss_scale_overflows')
    assert 1 <= overflows < 24
    assert runner.message_hub.get_info('skipped_updates') is None
    assert runner.optim_wrapper.loss_scaler.get_scale() == 2.0 ** (24 - overflows)
    assert f'and {overflows} in which the loss scaler tried too large a scale' in warnings[-1]
    assert not torch.equal(trace.weights[-1], trace.weights[0])


def float16():
    optimizer = dict(type='AdamW', lr=0.01, fused=True)
    return dict(type='AutocastOptimWrapper', dtype='float16', loss_scale=dict(init_scale=4.0), optimizer=optimizer)


def test_a_loss_that_no_scale_mends_ends_a_float16_run(tmp_path):
    with pytest.raises(BadNumbersError, match='3 updates in a row were NaN or infinite, the last in iteration 3'):
        train(tmp_path, bad=range(12), optim_wrapper=float16())


def test_a_gradient_that_no_scale_mends_ends_a_float16_run(tmp_path, monkeypatch):
    """Under a loss that is finite."""
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, 'backward', lambda self, gradient: backward(self, gradient=gradient * NAN))
    with pytest.raises(BadNumbersError, match='3 updates in a row were NaN or infinite, the last in iteration 5'):
        train(tmp_path, optim_wrapper=float16())  # scales 4 and 2, then three of 1


def test_bad_images_are_named_in_float16_too_and_do_not_lower_the_scale(tmp_path, warnings):
    runner, _ = train(tmp_path, bad=(4, 7), optim_wrapper=float16(), train_cfg=dict(by_epoch=True, max_epochs=5))
    assert runner.message_hub.get_info('skipped_updates') == 10
    assert runner.message_hub.get_info('loss_scale_overflows') is None
    assert runner.optim_wrapper.loss_scaler.get_scale() == 4
    told = next(text for text in warnings if text.startswith('Iteration '))
    assert told.startswith('Iteration 3: the update is left out') and 'images images/4.jpg, images/5.jpg.' in told


def test_the_count_goes_on_when_a_run_is_resumed(tmp_path):
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1), bad_numbers=dict(type='BadNumbersHook'))
    train(tmp_path, bad=(4,), train_cfg=dict(by_epoch=True, max_epochs=1), default_hooks=hooks)
    runner, _ = train(tmp_path, bad=(4,), resume=True, default_hooks=hooks)
    assert runner.message_hub.get_info('skipped_updates') == 2


def test_another_wrapper_is_told_of(tmp_path, warnings):
    train(tmp_path, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
    assert any('OptimWrapper does not leave out updates that are NaN or infinite; use Finite' in w for w in warnings)


def test_with_updates_in_flight_the_same_are_found_and_none_is_saved_unseen(tmp_path, monkeypatch, warnings):
    """As on a GPU, whose numbers arrive later."""
    look, depths = BadNumbersHook._look, []

    def later(self, runner, lag=None):
        look(self, runner, 0 if lag is None else 4)
        depths.append((lag is None, len(self._waiting)))

    monkeypatch.setattr(BadNumbersHook, '_look', later)
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1), bad_numbers=dict(type='BadNumbersHook'))
    runner, _ = train(tmp_path, bad=(4, 7), default_hooks=hooks)
    assert [depth for asked, depth in depths if not asked] == [1, 2, 3, 4, 4, 4] * 2
    assert [depth for asked, depth in depths if asked] == [0, 0, 0]  # two checkpoints and the end
    assert runner.message_hub.get_info('skipped_updates') == 4
    told = [text.split(':')[0] for text in warnings if text.startswith('Iteration ')]
    assert told == ['Iteration 3', 'Iteration 4', 'Iteration 9', 'Iteration 10']


@pytest.mark.slow
@pytest.mark.parametrize('precision', ['float32', 'float16'])
def test_processes_leave_out_the_same_updates_and_stop_at_the_same(tmp_path, precision):
    """Two processes; only the second has bad images."""
    words = [Path(sys.executable).parent / 'torchrun', '--standalone', '--nproc_per_node=2', '-m', __name__]
    words += [tmp_path, precision]
    done = subprocess.run(words, capture_output=True, text=True, timeout=170, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    weights = [torch.load(tmp_path / f'weights_{rank}.pt', weights_only=True) for rank in (0, 1)]
    scales = [kept.pop('scale') for kept in weights]
    assert scales == ([4, 4] if precision == 'float16' else [None, None])
    assert len(weights[0]) == 6  # of 12, had the run not been stopped
    assert all(torch.equal(a, b) for a, b in zip(*(kept.values() for kept in weights), strict=True))
    reports = [json.loads((tmp_path / name).read_text()) for name in ('bad_numbers.json', 'bad_numbers_rank1.json')]
    assert [[seen['iteration'] for seen in report['in_a_row']] for report in reports] == [[4, 5, 6]] * 2
    assert reports[1]['in_a_row'][0]['losses']['loss'] == ['nan']
    assert isinstance(reports[0]['in_a_row'][0]['losses']['loss'][0], float)
    assert reports[1]['in_a_row'][0]['samples'] == ['images/13.jpg', 'images/15.jpg']


def test_every_recipe_has_it():
    for path in LEAFS:
        cfg = Config.fromfile(path, import_custom_modules=False)
        if 'optim_wrapper' in cfg:
            assert cfg.optim_wrapper.type == 'AutocastOptimWrapper', path
            assert cfg.default_hooks.bad_numbers == dict(type='BadNumbersHook', patience=10), path
            if cfg.model.type == 'NEPA':
                assert cfg.default_hooks.collapse == dict(type='CollapseHook'), path


def test_patience_is_positive():
    with pytest.raises(ValueError, match='patience=0 is not positive'):
        BadNumbersHook(patience=0)


def in_two_processes(folder, precision):
    """One of two processes, each with a batch of 2: the second has the odd images."""
    rank = int(os.environ['RANK'])
    kept = {}

    @HOOKS.register_module()
    class Keep(Hook):
        priority = 'VERY_HIGH'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            kept[runner.iter] = runner.model.module.head.weight.detach().clone()

    cfg = config(folder, bad=(13, 17, 21), launcher='pytorch')
    cfg.train_dataloader.dataset.length = 24
    cfg.experiment_name = 'bad-numbers-processes'
    cfg.custom_hooks = [dict(type='Keep')]
    if precision == 'float16':
        cfg.optim_wrapper = float16()
    runner = NEPARunner.from_cfg(cfg)
    try:
        runner.train()
    except BadNumbersError:
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        kept['scale'] = scaler and scaler.get_scale()
        torch.save(kept, Path(folder, f'weights_{rank}.pt'))
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    in_two_processes(*sys.argv[1:])
