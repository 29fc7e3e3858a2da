"""The check of a GPU: its steps within their time, its files, and the clear word where there is none."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from nepa_mm.benchmark import gpu_check
from nepa_mm.benchmark.gpu_check import BUDGET, STEPS, Result, Step, check, rates_of, run_steps, write_results
from nepa_mm.benchmark.machine import describe_machine
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
    results = list(run_steps(steps, tmp_path, tmp_path, budget=120))
    assert [(r.name, r.status) for r in results] == [('good', 'passed'), ('bad', 'failed'), ('slow', 'timed out')]
    assert [r.summary for r in results[:2]] == ['all is well', 'it broke']
    assert results[0].command == "python -c print('first'); print('all is well')"
    assert 1 <= results[2].seconds < 20
    time.sleep(2.5)
    assert not (tmp_path / 'alive').exists()
    assert (tmp_path / 'steps' / 'good' / 'output.log').read_text() == 'first\nall is well\n'
    assert 'bad' in capsys.readouterr().out


def test_what_has_no_time_left_is_left_out(tmp_path):
    """Not begun with less than half of its limit; ended with the check's time, not its own, it has not failed."""
    steps = [python('long', 'import time; time.sleep(60)', 2.5), python('late', 'pass', 3), python('short', 'pass', 0)]
    long, late, short = run_steps(steps, tmp_path, tmp_path, budget=1.5)
    assert (long.status, late.status, short.status) == ('left out', 'left out', 'left out')
    assert long.seconds >= 1.5 and late.seconds == short.seconds == 0.0
    assert long.summary == 'ended with the 2 s of the check; it may take 2'
    assert late.summary == '0 of the 2 s of the check were left; it may take 3'
    (step,) = run_steps([python('half', 'pass', 100)], tmp_path, tmp_path, budget=52)
    assert step.status == 'passed'
    (step,) = run_steps([python('half', 'pass', 100)], tmp_path, tmp_path, budget=48)
    assert step.status == 'left out'


def test_all_steps_fit_into_eight_minutes():
    assert BUDGET < 8 * 60
    names = [step.name for step in STEPS]
    assert names[0] == 'tests' and len(set(names)) == len(names)
    whole = [s.name for s in STEPS if sum(t.seconds for t in STEPS[: STEPS.index(s) + 1]) <= BUDGET]
    assert whole == [
        'tests', 'step-base-gelu-compiled', 'step-large-gelu-compiled', 'step-base-gelu', 'step-large-gelu'
    ]  # fmt: skip
    # The next one is begun even where all of these took as long as they may.
    assert BUDGET - sum(step.seconds for step in STEPS[: len(whole)]) >= STEPS[len(whole)].seconds / 2
    compiled = {step.name: step.seconds for step in STEPS if step.name.endswith('-compiled')}
    assert min(compiled.values()) >= 90 and all(s >= 120 for name, s in compiled.items() if 'large' in name)


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


def reporting(name: str, report, prepared, end: str = '') -> Step:
    """A step that writes a report, and then ends as the code says."""
    files = report.write(prepared / name)
    code = f'import shutil, sys, time; shutil.copy(sys.argv[1], sys.argv[2]); {end}'
    return Step(name, ('-c', code, str(files[0]), '{out}'), 60)


def test_results_are_what_plans_read(tmp_path):
    steps = [
        reporting('step-base-gelu-compiled', step_report(), tmp_path),
        reporting('step-shortened', step_report(settings=dict(num_layers=2)), tmp_path),
        reporting('step-unknown', step_report(gpu='NVIDIA H100 NVL'), tmp_path),
    ]
    results = list(run_steps(steps, tmp_path, tmp_path, budget=120))
    assert [f['name'] for f in results[0].figures] == ['bf16 step', 'bf16 images']
    results.append(Result('tests', 'failed', 3.0, 'python -m pytest', '1 failures'))
    write_results(results, tmp_path, describe_machine())

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


def test_nothing_of_an_earlier_check_is_told_as_of_this_one(tmp_path, monkeypatch):
    """Not where a step fails, takes too long or is not begun."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a GPU')
    out = tmp_path / 'out'
    suite = '<testsuites><testsuite tests="14" failures="0" errors="0" skipped="0"/></testsuites>'
    for name in ('tests', 'fails', 'slow', 'late'):
        step_report().write(out / 'steps' / name)
        (out / 'steps' / name / 'tests.xml').write_text(suite)
    for name in ('gpu_check.md', 'gpu_check.json', 'measured.json'):
        (out / name).write_text('of yesterday')
    seen = []

    def describe():
        seen.extend(file.name for file in out.glob('*.*'))
        return dict(gpu='a GPU')

    monkeypatch.setattr(gpu_check, 'describe_machine', describe)
    steps = [
        python('tests', 'raise SystemExit(1)'),
        reporting('fails', step_report(), tmp_path, end='sys.exit("out of memory")'),
        python('slow', 'import time; time.sleep(60)', 1.0),
        python('late', 'pass', 1000.0),
    ]
    assert check(out, ROOT, steps, budget=120) == 1
    assert seen == [], 'of yesterday'
    content = json.loads((out / 'gpu_check.json').read_text())
    assert [r['status'] for r in content['results']] == ['failed', 'failed', 'timed out', 'left out']
    assert [r['summary'] for r in content['results'][:3]] == ['', 'out of memory', '']
    assert all(r['figures'] == [] for r in content['results'])
    assert read_rates([out / 'measured.json']) == []
    assert sorted(folder.name for folder in (out / 'steps').iterdir()) == ['fails', 'slow', 'tests']


def test_reports_that_cannot_be_read_fail_their_step_alone(tmp_path):
    half = 'import pathlib, sys; pathlib.Path(sys.argv[1], sys.argv[2]).write_text(sys.argv[3])'
    broken = step_report()
    broken.figures.clear()
    broken.add('bf16 images', [float('nan')], 'img/s')
    steps = [
        Step('json', ('-c', half, '{out}', 'step.json', '{"figures": ['), 60),
        Step('xml', ('-c', half, '{out}', 'tests.xml', '<testsuites><testsuite tests="14"'), 60),
        reporting('nan', broken, tmp_path),
        reporting('good', step_report(), tmp_path),
    ]
    *broken, good = run_steps(steps, tmp_path, tmp_path, budget=240)
    assert [r.status for r in broken] == ['failed'] * 3
    assert all(r.summary.startswith('its report cannot be read: ') and not r.figures for r in broken)
    assert (good.status, len(good.rates)) == ('passed', 1)


def test_results_are_written_after_every_step(tmp_path, monkeypatch):
    """Who interrupts the check keeps what it found, and no process of it goes on."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a GPU')
    monkeypatch.setattr(gpu_check, 'describe_machine', lambda: dict(gpu='a GPU'))
    ended = []

    class Interrupted(subprocess.Popen):
        """As if Ctrl-C were pressed during the second step."""

        def wait(self, timeout=None):
            if timeout is not None and 'sleep' in self.args[-1]:
                ended.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, 'Popen', Interrupted)
    steps = [reporting('first', step_report(), tmp_path), python('second', 'import time; time.sleep(60)')]
    with pytest.raises(KeyboardInterrupt):
        check(tmp_path / 'out', ROOT, steps, budget=120)
    assert [process.returncode for process in ended] == [-signal.SIGKILL]
    (rate,) = read_rates([tmp_path / 'out' / 'measured.json'])
    assert rate.images_per_second == 3100.0
    content = json.loads((tmp_path / 'out' / 'gpu_check.json').read_text())
    assert [r['name'] for r in content['results']] == ['first']


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
    assert check(tmp_path / 'd', ROOT, [good, python('late', 'pass', 1000.0)], budget=120) == 0, 'left out, not failed'
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
