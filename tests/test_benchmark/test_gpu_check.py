"""The check of a GPU: its steps within their time, its files, and the clear word where there is none."""

import json
import subprocess
import sys
import time

import pytest
import torch

from nepa_mm.benchmark import gpu_check
from nepa_mm.benchmark.gpu_check import BUDGET, STEPS, Result, Step, check, rates_of, run_steps, write_results
from nepa_mm.benchmark.plan_rates import read_rates
from nepa_mm.benchmark.report import Report
from tests.test_configs import ROOT

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason='is about machines without a GPU')


def python(name: str, code: str, seconds: float = 60.0) -> Step:
    return Step(name, ('-c', code), seconds)


def step_report(**changes) -> dict:
    """As benchmark.py step writes it on a GPU."""
    report = Report('step', command='python tools/analysis/benchmark.py step')
    report.settings = dict(arch='base', num_layers=None, mlp='gelu', img_size=224, batch_size=256, compile=True)
    report.settings.update(changes.pop('settings', {}))
    report.machine.update(gpu='NVIDIA H100 80GB HBM3', date='2030-01-01', torch='2.14.1')
    report.machine.update(changes)
    report.add('bf16 step', [0.08, 0.1, 0.12], 's')
    report.add('bf16 images', [3000.0, 3100.0, 3300.0], 'img/s', ('>=', 3200.0))
    return report


def test_steps_within_their_time(tmp_path, capsys):
    steps = [
        python('good', "print('first'); print('all is well')"),
        python('bad', "raise SystemExit('it broke')"),
        # A child that outlives its parent, as a compiler's workers would, goes with it.
        python(
            'slow',
            'import subprocess, sys, time\n'
            'subprocess.Popen([sys.executable, \'-c\', \'import time; time.sleep(2); open("alive", "w")\'])\n'
            'time.sleep(60)',
            seconds=1.0,
        ),
    ]
    results = run_steps(steps, tmp_path, tmp_path, budget=60)
    assert [(r.name, r.status) for r in results] == [('good', 'passed'), ('bad', 'failed'), ('slow', 'timed out')]
    assert [r.summary for r in results[:2]] == ['all is well', 'it broke']
    assert results[0].command == "python -c print('first'); print('all is well')"
    assert 1 <= results[2].seconds < 20
    time.sleep(2.5)
    assert not (tmp_path / 'alive').exists()
    assert (tmp_path / 'good' / 'output.log').read_text() == 'first\nall is well\n'
    assert 'bad' in capsys.readouterr().out


def test_what_has_no_time_left_is_left_out(tmp_path):
    steps = [python('long', 'import time; time.sleep(60)'), python('late', 'pass')]
    long, late = run_steps(steps, tmp_path, tmp_path, budget=0.5)
    assert (long.status, late.status, late.seconds) == ('timed out', 'left out', 0.0)
    assert late.summary == 'the 0 s of the check were over'


def test_all_steps_fit_into_eight_minutes():
    assert BUDGET < 8 * 60
    names = [step.name for step in STEPS]
    assert names[0] == 'tests' and len(set(names)) == len(names)
    whole = [s.name for s in STEPS if sum(t.seconds for t in STEPS[: STEPS.index(s) + 1]) <= BUDGET]
    assert set(whole) >= {'step-base-gelu-compiled', 'step-large-gelu-compiled', 'step-base-gelu', 'memory', 'tokens'}


@pytest.mark.parametrize('step', STEPS[1:], ids=lambda s: s.name)
def test_the_benchmarks_take_the_arguments_of_the_steps(step):
    """Parsed by the sub-command itself: a renamed option shows here and not on a GPU."""
    import argparse
    import importlib

    tool, name, *arguments = step.command
    assert (ROOT / tool).is_file()
    parser = argparse.ArgumentParser()
    module = importlib.import_module(f'nepa_mm.benchmark.{name}')
    module.add_arguments(parser)
    parser.add_argument('--out-dir')
    args = parser.parse_args(arguments)
    assert (args.device, args.out_dir) == ('cuda', '{out}')


@pytest.mark.slow
def test_the_tests_that_it_runs_exist():
    command = [sys.executable, *STEPS[0].command, '--collect-only', '-p', 'no:cacheprovider']
    command = [argument for argument in command if argument not in ('--junit-xml', '{out}/tests.xml')]
    command[command.index('tests')] = 'tests/test_gpu'
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count('[cuda') >= 14 and '[cpu' not in done.stdout


def test_numbers_of_the_tests(tmp_path):
    suite = '<testsuites><testsuite tests="{}" failures="{}" errors="0" skipped="{}"/></testsuites>'
    code = "import pathlib, sys; pathlib.Path(sys.argv[1], 'tests.xml').write_text(sys.argv[2])"
    steps = [
        Step(name, ('-c', code, '{out}', suite.format(*numbers)), 60)
        for name, numbers in (('some', (14, 0, 2)), ('none', (14, 0, 14)))
    ]
    some, none = run_steps(steps, tmp_path, tmp_path, budget=60)
    assert (some.status, some.summary) == ('passed', '14 tests, 0 failures, 0 errors, 2 skipped')
    assert (none.status, none.summary) == ('failed', '14 tests, 0 failures, 0 errors, 14 skipped: no test ran')


def test_results_are_what_plans_read(tmp_path):
    step_report().write(tmp_path / 'step-base-gelu-compiled')
    step_report(settings=dict(num_layers=2)).write(tmp_path / 'step-shortened')
    step_report(gpu='NVIDIA H100 NVL').write(tmp_path / 'step-unknown')
    code = 'import sys; print(sys.argv)'
    names = ('step-base-gelu-compiled', 'step-shortened', 'step-unknown')
    results = run_steps([python(name, code) for name in names], tmp_path, tmp_path, budget=60)
    assert [f['name'] for f in results[0].figures] == ['bf16 step', 'bf16 images']
    write_results([*results, Result('tests', 'failed', 3.0, 'python -m pytest', '1 failures')], tmp_path)

    (rate,) = read_rates([tmp_path / 'measured.json'])
    assert (rate.gpu, rate.arch, rate.mlp, rate.images_per_second) == ('h100', 'base', 'gelu', 3100.0)
    assert (rate.kind, rate.compiled, rate.image_size, rate.gpus) == ('measured', True, 224, 1)
    assert rate.source == 'forward and backward at batch 256 on NVIDIA H100 80GB HBM3, torch 2.14.1, 2030-01-01'
    content = json.loads((tmp_path / 'gpu_check.json').read_text())
    assert content['machine']['torch'] == torch.__version__
    assert [r['status'] for r in content['results']] == ['passed'] * 3 + ['failed']
    table = (tmp_path / 'gpu_check.md').read_text()
    assert '| tests | failed | 3.0 | 1 failures |' in table
    assert '| step-base-gelu-compiled | bf16 images | 3100 | 3050 to 3200 | img/s | >= 3200: missed |' in table


def test_reports_of_other_machines_give_no_rate():
    reports = [json.loads(json.dumps(dict(machine=dict(gpu=None), settings={}, figures=[])))]
    assert rates_of(reports) == []


def test_status_is_that_of_the_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a GPU')
    monkeypatch.setattr(gpu_check, 'describe_machine', lambda: dict(gpu='a GPU'))
    good, bad = python('good', 'pass'), python('bad', 'raise SystemExit(3)')
    assert check(tmp_path / 'a', ROOT, [good]) == 0
    assert check(tmp_path / 'b', ROOT, [good, bad]) == 1
    assert (tmp_path / 'b' / 'measured.json').is_file()
    assert check(tmp_path / 'c', tmp_path, [good]) == 1, 'no clone, no tests'
    assert not (tmp_path / 'c').exists()


@NO_GPU
def test_without_a_gpu_it_says_so(tmp_path, capsys):
    assert check(tmp_path / 'out', ROOT) == 0
    assert capsys.readouterr().out == (
        f'gpu-check: SKIPPED. torch {torch.__version__} sees no CUDA device here, so nothing was checked.\n'
    )
    assert not (tmp_path / 'out').exists()


@NO_GPU
@pytest.mark.slow
def test_the_tool_ends_well_without_a_gpu(tmp_path):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tools' / 'gpu_check.py', '--out-dir', tmp_path / 'out'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stdout.startswith('gpu-check: SKIPPED. torch ') and 'sees no CUDA device' in done.stdout
    assert not (tmp_path / 'out').exists()


def test_make_has_the_target():
    makefile = (ROOT / 'Makefile').read_text()
    assert 'gpu-check: $(STAMP) ## ' in makefile and '@$(RUN) tools/gpu_check.py' in makefile
    assert 'gpu-check' in makefile.split('.PHONY:')[1].splitlines()[0]
