"""Runs that do not wait for the device between log lines, and format their config once."""

import copy
import pickle
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.registry import RUNNERS
from torch.utils._python_dispatch import TorchDispatchMode

from nepa_mm.engine import DeferredMessageHub
from nepa_mm.engine.light_runs import FormattedConfig
from tests.layouts import make_layouts
from tests.test_configs import ROOT, save_what_it_starts_from, shrink

aten = torch.ops.aten
# On a GPU each of these waits until everything before it is done: its result, or the size of it, goes to Python.
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2}
PRETRAIN = 'pretrain/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k'
RECIPES = [
    PRETRAIN,
    'classification/nepa_base-p14_8xb128-bf16-coslr-100e_in1k',
    'segmentation/nepa_base-p14_upernet_8xb2-bf16-160k_ade20k-518x518',
    'segmentation/nepa_base-p14_linear_8xb2-bf16-40k_ade20k-518x518',
]
# What these read lies on the CPU wherever the model lies: a flag; and indices that torch checks on the CPU only.
ON_THE_CPU = {'stop_on_signal_hook.py:after_train_iter', 'utils.py:batch_label_to_onehot'}
INTERVAL, ITERS = 4, 7


class Waits(TorchDispatchMode):
    """Notes where something waits, as (iteration, file:function)."""

    def __init__(self, runner):
        super().__init__()
        self.runner = runner
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        mask = func.overloadpacket is aten.index and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if func.overloadpacket in WAITING or mask:
            self.seen.append((self.runner.iter, caller()))
        return func(*args, **(kwargs or {}))


def caller() -> str:
    """The innermost function on the stack that is neither torch's nor this file's."""
    frame = sys._getframe(1)
    while '/torch/' in frame.f_code.co_filename or frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return f'{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}'


class WatchIterations(Hook):
    """Watches each iteration, from the hooks before it to those after it, without the loading of data."""

    def before_train(self, runner):
        self.waits = Waits(runner)
        run_iter = runner.train_loop.run_iter

        def watched(*args):
            with self.waits:
                run_iter(*args)

        runner.train_loop.run_iter = watched


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('waits')
    make_layouts(folder)
    return folder


def config(name, work_dir):
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    shrink(cfg)
    save_what_it_starts_from(cfg.model.backbone, Path())
    cfg.work_dir, cfg.launcher = str(work_dir), 'none'
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=ITERS)
    cfg.train_dataloader.sampler.type = 'InfiniteSampler'  # mmengine sleeps before it starts an epoch anew
    cfg.default_hooks.logger.interval = INTERVAL
    cfg.default_hooks.checkpoint.update(interval=10**9, save_last=False, save_best=None)
    return cfg


def waits(cfg):
    runner, watch = RUNNERS.build(cfg), WatchIterations()
    runner.register_hook(watch)
    runner.train()
    assert runner.iter == ITERS
    return runner, watch.waits.seen


@pytest.fixture
def run_in(data, monkeypatch):
    """Run in the folder of the data, with configs that are not made pretty, which takes longer than the rest."""
    monkeypatch.chdir(data)
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **kwargs: (text, True))


@pytest.mark.parametrize('recipe', RECIPES)
def test_nothing_waits_for_the_device_between_log_lines(recipe, run_in, tmp_path):
    runner, seen = waits(config(recipe, tmp_path))
    assert {where for _, where in seen} <= ON_THE_CPU
    assert type(runner.message_hub) is DeferredMessageHub
    assert runner.model.data_preprocessor._non_blocking is True
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == ITERS
    assert torch.isfinite(torch.tensor(losses)).all()


def test_with_the_hub_of_mmengine_every_iteration_waits(run_in, tmp_path, monkeypatch):
    monkeypatch.setattr('nepa_mm.engine.light_runs.DeferredMessageHub', MessageHub)
    _, seen = waits(config(PRETRAIN, tmp_path))
    assert {i for i, where in seen if where == 'message_hub.py:_get_valid_value'} == set(range(ITERS))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('recipe', RECIPES)
def test_no_synchronisation_on_a_gpu_between_log_lines(recipe, run_in, tmp_path):
    class Strict(Hook):
        """torch raises where the host waits for the device, but in iterations that write a log line."""

        def before_train(self, runner):
            run_iter = runner.train_loop.run_iter

            def strict(*args):
                # The first iterations make what is made once: handles, workspaces, fused kernels' state.
                quiet = runner.iter < 2 or (runner.iter + 1) % INTERVAL == 0 or runner.iter == ITERS - 1
                torch.cuda.set_sync_debug_mode('default' if quiet else 'error')
                try:
                    run_iter(*args)
                finally:
                    torch.cuda.set_sync_debug_mode('default')

            runner.train_loop.run_iter = strict

    cfg = config(recipe, tmp_path)
    cfg.train_dataloader.pin_memory = True
    runner = RUNNERS.build(cfg)
    runner.register_hook(Strict())
    runner.train()
    assert runner.iter == ITERS


def test_a_config_is_formatted_once(monkeypatch):
    import yapf.yapflib.yapf_api as api

    calls, original = [], api.FormatCode
    monkeypatch.setattr(api, 'FormatCode', lambda text, **kwargs: calls.append(text) or original(text, **kwargs))
    file = Path(__file__)
    plain = Config(dict(a=1, b=dict(c=[1, 2], d='x')), filename=file)
    cfg = FormattedConfig.of(plain)
    assert cfg.pretty_text == cfg.pretty_text == copy.deepcopy(cfg).pretty_text == cfg.dump()
    assert len(calls) == 1
    assert cfg.pretty_text == plain.pretty_text  # mmengine's text, by mmengine's own way
    assert len(calls) == 2
    cfg.b.c = [3]
    assert 'c=[' in cfg.pretty_text and '3,' in cfg.pretty_text
    assert len(calls) == 3
    assert (cfg.filename, type(copy.deepcopy(cfg)), type(pickle.loads(pickle.dumps(cfg)))) == (
        str(file),
        FormattedConfig,
        FormattedConfig,
    )


def test_the_runner_keeps_what_it_was_given(tmp_path):
    from tests.test_engine.test_runner import build

    runner = build(tmp_path)
    assert type(runner.cfg) is FormattedConfig
    text = (tmp_path / runner.timestamp / f'{runner.timestamp}.log').read_text()
    assert runner.cfg.pretty_text in text
    runner.cfg.work_dir = 'elsewhere'
    assert "work_dir = 'elsewhere'" in runner.cfg.pretty_text
