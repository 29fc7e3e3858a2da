"""One command for a machine with a GPU: its tests and its benchmarks within a time limit, and what they gave."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .machine import describe_machine
from .plan_gpus import gpu_of_device
from .plan_rates import Rate, write_rates
from .step import GPU_TARGETS

# Seconds of the whole check: 8 minutes, less what starting and writing take.
BUDGET = 465.0
# What a check leaves beside the folders of its steps.
RESULTS = ('gpu_check.json', 'gpu_check.md', 'measured.json')
# The figure of a step's report that plans are made with.
STEP_RATE = 'bf16 images'


@dataclass(frozen=True)
class Step:
    """A command of the check.

    Args:
        name (str): Its name; what it writes goes into a folder of that name.
        command (tuple[str, ...]): Arguments of Python; '{out}' stands for that folder.
        seconds (float): It is ended after so many.
    """

    name: str
    command: tuple[str, ...]
    seconds: float


@dataclass
class Result:
    """What became of a step.

    Args:
        name (str): The step.
        status (str): 'passed', 'failed', 'timed out' after its own limit, or 'left out' where the check's time did not
            suffice.
        seconds (float): It took.
        command (str): To run it again.
        summary (str): In one line.
        figures (list[dict]): Of its report, where it passed.
        rates (list[Rate]): Of the same.
    """

    name: str
    status: str
    seconds: float
    command: str
    summary: str = ''
    figures: list[dict[str, Any]] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)


def _benchmark(name: str, *arguments: str, seconds: float) -> Step:
    command = ('tools/analysis/benchmark.py', *arguments, '--device', 'cuda', '--out-dir', '{out}')
    return Step(name, command, seconds)


def _step(arch: str, mlp: str, batch: int, seconds: float, compiled: bool = False) -> Step:
    arguments = ['step', '--arch', arch, '--mlp', mlp, '--batch-size', str(batch), '--dtype', 'bf16', '--rounds', '10']
    how = ['--compile', '--no-timm'] if compiled else []
    name = f'step-{arch}-{mlp}' + ('-compiled' if compiled else '')
    return _benchmark(name, *arguments, '--warmup', '3', *how, seconds=seconds)


# The batches that the targets are meant at; the SwiGLU steps stand beside them.
_BASE, _LARGE = (GPU_TARGETS[arch, 'gelu'].batch for arch in ('base', 'large'))
# Compiled steps have time for a compiler that finds its cache empty: tracing alone takes 10 s for B's 12 layers and
# 15 s for L's 24 on one shared core. What matters most comes first; what does not fit into the time is left out.
STEPS = (
    Step('tests', ('-m', 'pytest', '-q', '-m', 'gpu', '--junit-xml', '{out}/tests.xml', 'tests'), 130),
    _step('base', 'gelu', _BASE, 90, compiled=True),
    _step('large', 'gelu', _LARGE, 120, compiled=True),
    _step('base', 'gelu', 128, 30),
    _step('large', 'gelu', 64, 30),
    _step('base', 'swiglu', _BASE, 90, compiled=True),
    _step('large', 'swiglu', _LARGE, 120, compiled=True),
    _benchmark('memory', 'memory', '--batch-size', '64', '--dtype', 'bf16', seconds=50),
    _benchmark('tokens', 'tokens', '--dtype', 'bf16', '--rounds', '1', seconds=50),
    _benchmark('data', 'data', '--uses', 'pretrain', '--images', '128', '--rounds', '3', '--warmup', '1', seconds=40),
)


def check(folder: str | Path, root: str | Path, steps: Sequence[Step] = STEPS, budget: float = BUDGET) -> int:
    """Run the check where there is a GPU, and write gpu_check.json, gpu_check.md and measured.json.

    Args:
        folder (str | Path): Where to.
        root (str | Path): The clone, with tests/ and tools/.
        steps (Sequence[Step]): What is run. Defaults to all.
        budget (float): Seconds of all together. Defaults to 465.

    Returns:
        int: Exit status: 1 where something failed or took longer than its own limit; 0 otherwise, also where the time
            did not suffice for all, and where there is no GPU.
    """
    if not torch.cuda.is_available():
        print(f'gpu-check: SKIPPED. torch {torch.__version__} sees no CUDA device here, so nothing was checked.')
        return 0
    root, folder = Path(root).resolve(), Path(folder).resolve()
    if not (root / 'tests').is_dir():
        print(f'gpu-check: {root} has no tests/: run it in a clone of the repository.', file=sys.stderr)
        return 1
    print(f'gpu-check: {torch.cuda.get_device_name()}, at most {budget / 60:.0f} minutes')
    folder.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
    machine = describe_machine()
    results: list[Result] = []
    for result in run_steps(steps, folder, root, budget):
        results.append(result)
        write_results(results, folder, machine)  # at once: who ends the check keeps what it has found
    print(f'written: {folder}/gpu_check.md, gpu_check.json, measured.json (for tools/analysis/plan.py --measured)')
    return int(any(result.status in ('failed', 'timed out') for result in results))


def run_steps(steps: Sequence[Step], folder: Path, root: Path, budget: float) -> Iterator[Result]:
    """Run steps one after another, each no longer than its own limit and what is left of the whole.

    A step that half of its limit is not left for is not begun: it would most likely be ended and tell nothing.

    Args:
        steps (Sequence[Step]): The steps.
        folder (Path): In its folder 'steps' each has one, with an output.log. What an earlier check left there is
            removed, also of steps that are not begun.
        root (Path): Where they run.
        budget (float): Seconds of all together.

    Yields:
        Result: Of each step, when it has ended.
    """
    for step in steps:
        if (folder / 'steps' / step.name).exists():
            shutil.rmtree(folder / 'steps' / step.name)
    end = time.monotonic() + budget
    for step in steps:
        out = folder / 'steps' / step.name
        command = [argument.replace('{out}', str(out)) for argument in step.command]
        shown = ' '.join(['python', *(argument.replace(str(out), out.name) for argument in command)])
        left = end - time.monotonic()
        if left < step.seconds / 2:
            why = f'{max(left, 0):.0f} of the {budget:.0f} s of the check were left; it may take {step.seconds:.0f}'
            result = Result(step.name, 'left out', 0.0, shown, why)
        else:
            out.mkdir(parents=True)
            start = time.monotonic()
            code = _run(command, out / 'output.log', root, min(step.seconds, left))
            result = Result(step.name, 'failed' if code else 'passed', round(time.monotonic() - start, 1), shown)
            if code is not None:
                _read_reports(result, out)
                result.summary = result.summary or _last_line(out / 'output.log')
            elif left < step.seconds:
                result.status = 'left out'
                result.summary = f'ended with the {budget:.0f} s of the check; it may take {step.seconds:.0f}'
            else:
                result.status, result.summary = 'timed out', _last_line(out / 'output.log')
        print(f'  {result.name:28} {result.status:10} {result.seconds:6.1f} s  {result.summary}')
        yield result


def _run(command: Sequence[str], log: Path, root: Path, seconds: float) -> int | None:
    """Exit status of Python with these arguments; None where it had to be ended, with all it has started."""
    with log.open('w') as stream:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=root, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:  # also where somebody interrupts the check
                os.killpg(process.pid, signal.SIGKILL)  # torch.compile has processes of its own
                process.wait()


def _read_reports(result: Result, out: Path) -> None:
    """The numbers of the tests, and the figures and rates of a benchmark that passed."""
    try:
        tests = out / 'tests.xml'
        if tests.is_file():
            _read_tests(result, tests)
        if result.status == 'passed':
            reports = [json.loads(file.read_text()) for file in sorted(out.glob('*.json'))]
            result.rates = rates_of([report for report in reports if report['name'] == 'step'])
            result.figures = [figure for report in reports for figure in report['figures']]
    except (ValueError, ElementTree.ParseError) as error:
        result.status, result.summary = 'failed', f'its report cannot be read: {error}'


def _read_tests(result: Result, file: Path) -> None:
    suites = list(ElementTree.parse(file).getroot().iter('testsuite'))
    number = {key: sum(int(s.get(key, 0)) for s in suites) for key in ('tests', 'failures', 'errors', 'skipped')}
    result.summary = ', '.join(f'{value} {key}' for key, value in number.items())
    if number['tests'] == number['skipped']:
        result.status = 'failed'
        result.summary += ': no test ran'


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors='replace').splitlines() if line.strip()]
    return lines[-1][:120] if lines else ''


def rates_of(reports: Sequence[Mapping[str, Any]]) -> list[Rate]:
    """Rates for plans, of reports of ``benchmark.py step``.

    Args:
        reports (Sequence[Mapping[str, Any]]): Content of their JSON files.

    Returns:
        list[Rate]: Of those that were made on a GPU of the plans' table, with whole models.
    """
    rates = []
    for report in reports:
        machine, settings = report['machine'], report['settings']
        gpu = gpu_of_device(machine.get('gpu') or '')
        median = next((f['median'] for f in report['figures'] if f['name'] == STEP_RATE), None)
        if gpu is None or median is None or settings.get('num_layers') is not None:
            continue
        source = (
            f'forward and backward at batch {settings["batch_size"]} on {machine["gpu"]}, torch {machine["torch"]}, '
            f'{machine["date"]}'
        )
        rates.append(
            Rate(
                gpu,
                settings['arch'],
                settings['mlp'],
                median,
                'measured',
                source,
                image_size=settings['img_size'],
                compiled=bool(settings['compile']),
            )
        )
    return rates


def write_results(results: Sequence[Result], folder: Path, machine: Mapping[str, Any]) -> None:
    """Write gpu_check.json, gpu_check.md and measured.json.

    Args:
        results (Sequence[Result]): Of the steps.
        folder (Path): Where to.
        machine (Mapping[str, Any]): As ``describe_machine`` tells it.
    """
    content = dict(machine=dict(machine), results=[asdict(result) for result in results])
    (folder / 'gpu_check.json').write_text(json.dumps(content, indent=1) + '\n')
    lines = ['# gpu-check', '', ', '.join(f'{k} {v}' for k, v in machine.items() if v not in (None, '')) + '.', '']
    lines += ['| step | status | seconds | |', '|---|---|---|---|']
    lines += [f'| {r.name} | {r.status} | {r.seconds:.1f} | {r.summary} |' for r in results]
    measured = [r for r in results if r.figures]
    if measured:
        lines += ['', '| step | figure | median | quartiles | unit | target |', '|---|---|---|---|---|---|']
    for result in measured:
        for f in result.figures:
            target = (
                '' if f['target'] is None else f'{f["target"][0]} {f["target"][1]:g}: {"met" if f["met"] else "missed"}'
            )
            spread = f'{f["low"]:.4g} to {f["high"]:.4g}'
            lines.append(f'| {result.name} | {f["name"]} | {f["median"]:.4g} | {spread} | {f["unit"]} | {target} |')
    (folder / 'gpu_check.md').write_text('\n'.join([*lines, '']))
    write_rates([rate for result in results for rate in result.rates], folder / 'measured.json', machine)
