"""Medians, targets and files of a report, and where there is none."""

import json
import runpy
import sys

import pytest

from nepa_mm.benchmark import machine
from nepa_mm.benchmark.report import Figure, Report
from tests.golden import ROOT


def test_a_figure_is_its_median_between_its_quartiles():
    figure = Figure('step', (4.0, 1.0, 2.0, 3.0, 100.0), 's')
    assert (figure.median, figure.low, figure.high, figure.met) == (3.0, 2.0, 4.0, None)
    single = Figure('step', (4.0,), 's')
    assert (single.low, single.high) == (4.0, 4.0)


@pytest.mark.parametrize(
    ('target', 'met'), [(('<=', 1.1), True), (('<=', 1.0), False), (('>=', 1.1), True), (('>=', 1.2), False)]
)
def test_a_target_is_kept_or_missed(target, met):
    assert Figure('ratio', (1.1,), 'ratio', target).met is met


def test_a_figure_without_values_or_with_an_unknown_comparison_is_refused():
    with pytest.raises(ValueError, match="'step' has no values"):
        Figure('step', (), 's')
    with pytest.raises(ValueError, match='neither'):
        Figure('step', (1.0,), 's', ('<', 1.0))


@pytest.fixture
def report():
    made = Report('step', 'python tools/analysis/benchmark.py step', settings=dict(batch=8))
    made.add('bare products', [1.0, 1.0], 's')
    made.add('step', [1.25, 1.35], 'ratio', ('<=', 1.1), limit='bare products', note='fp32')
    made.add('rate', [3210.4], 'img/s', ('>=', 1200))
    return made


def test_the_table_says_what_is_met_and_what_is_missed(report):
    lines = report.markdown().splitlines()
    assert '| bare products | 1 | 1 to 1 | s |  |  |' in lines
    assert '| step | 1.3 | 1.275 to 1.325 | ratio | <= 1.1: missed | bare products; fp32 |' in lines
    assert '| rate | 3210 | 3210 to 3210 | img/s | >= 1200: met |  |' in lines
    assert '`python tools/analysis/benchmark.py step`' in lines
    assert 'Settings: batch 8.' in lines


def test_the_files_hold_all_values_and_the_circumstances(report, tmp_path):
    as_json, as_markdown = report.write(tmp_path / 'new' / 'folder')
    content = json.loads(as_json.read_text())
    assert content['figures'][1]['values'] == [1.25, 1.35]
    assert content['figures'][1]['met'] is False
    assert content['figures'][1]['median'] == pytest.approx(1.3)
    assert content['machine']['torch']
    assert as_markdown.read_text() == report.markdown()


def test_figures_are_found_by_name(report):
    assert report['rate'].unit == 'img/s'
    with pytest.raises(KeyError, match="no figure 'speed'.*'rate'"):
        report['speed']


def test_the_machine_names_no_host_and_no_path():
    about = machine.describe_machine()
    assert about['cores'] >= 1 and about['threads'] >= 1
    assert machine.platform.node() not in map(str, about.values())
    assert not any('/' in str(value) for key, value in about.items() if key != 'cpu')


def test_a_folder_without_git_has_no_commit(monkeypatch):
    def fail(*_, **__):
        raise FileNotFoundError('git')

    monkeypatch.setattr(machine.subprocess, 'run', fail)
    assert machine.describe_machine()['commit'] is None


def test_a_device_that_is_not_there_is_said_without_a_traceback(tmp_path, monkeypatch):
    words = ['data', '--device', 'cuda:99', '--out-dir', str(tmp_path / 'out')]
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *words])
    with pytest.raises(SystemExit, match="^benchmark.py: --device 'cuda:99' cannot be used here "):
        runpy.run_path(str(ROOT / 'tools/analysis/benchmark.py'), run_name='__main__')
    assert not (tmp_path / 'out').exists()
