"""The loop beside a bare one, and starts: small enough to run here, with what must hold whatever the machine."""

import argparse
import copy

import numpy as np
import pytest
import torch

from nepa_mm.benchmark import loop, startup
from nepa_mm.benchmark.loop_pace import keep_pace
from nepa_mm.engine.message_hub import GrowingHistory


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """The benchmark sets the number of threads, for the process."""
    monkeypatch.setattr(torch, 'set_num_threads', lambda count: None)


def arguments(*given):
    parser = argparse.ArgumentParser()
    loop.add_arguments(parser)
    return parser.parse_args(given)


def test_figures_of_a_small_model(monkeypatch):
    args = arguments('--iters', '2', '--small-iters', '2', '--past', '300', '--starts', '0', '--warmup', '1')
    args.arch, args.img_size, args.batch_size = loop.SMALL, 28, 2
    report = loop.run(args)
    assert [figure.name for figure in report.figures] == [
        'bare iteration',
        'iteration of NEPARunner',
        'NEPARunner / bare',
        'parameter groups',
        'NEPARunner adds, at the start',
        'NEPARunner adds, after 300 iterations',
        "mmengine's Runner adds, at the start",
        "mmengine's Runner adds, after 300 iterations",
    ]
    bare, runner, quotient = (np.array(figure.values) for figure in report.figures[:3])
    assert len(bare) == 2
    assert (bare > 0).all()
    np.testing.assert_allclose(quotient, runner / bare)
    assert report['NEPARunner / bare'].target == ('<=', 1.03)
    assert report['parameter groups'].values == (2.0,)  # with weight decay and without


def test_the_bare_loop_trains_a_model_of_its_own():
    models = []

    def remember(pace):
        original = pace.before_train

        def before_train(runner):
            original(runner)
            models.extend([runner.model, pace.twin, copy.deepcopy(pace.twin)])

        pace.before_train = before_train

    pace = keep_pace(loop.SMALL, 28, 2, iters=3, warmup=1, prepare=remember)
    assert len(pace.bare) == len(pace.runner) == 3
    for (name, mine), twin, start in zip(
        models[0].named_parameters(), *(model.parameters() for model in models[1:]), strict=True
    ):
        assert not torch.equal(twin, start), name
        assert not torch.equal(mine, start), name
        assert mine.data_ptr() != twin.data_ptr(), name


def test_histories_are_lengthened():
    hubs = []

    def remember(pace):
        pace.after_train = lambda runner: hubs.append(runner.message_hub)

    keep_pace(loop.SMALL, 28, 2, iters=2, warmup=1, past=100, prepare=remember)
    for key, history in hubs[0].log_scalars.items():
        assert type(history) is GrowingHistory
        assert len(history.data[0]) >= 100, key


def test_a_command_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(
        startup, '_train', lambda *_: ['python', '-c', 'import sys; print(7); sys.exit("no such thing")']
    )
    with pytest.raises(startup.StartError, match='ended with 1:\nno such thing'):
        startup.help_text()
    with pytest.raises(startup.StartError, match='ended before its first step:\n7\nno such thing'):
        startup.first_step()


def test_help_is_quick():
    assert 0 < startup.help_text() < 20  # of the issue: 2; this machine may be busy


@pytest.mark.slow
def test_a_start_ends_with_a_step():
    assert startup.first_step() > 0.5
