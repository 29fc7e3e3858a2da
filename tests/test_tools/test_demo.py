"""tools/demo.py: one smoke run as a process, and its parts."""

import importlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
STAGES = ('pretrain', 'segment_random', 'segment_nepa', 'linear_random', 'linear_nepa')
MODULES = ('demo', 'demo_progress', 'demo_report')


@pytest.fixture(scope='module')
def tools():
    """The demo's modules by name; they import each other as scripts of one folder do."""
    sys.path.insert(0, str(ROOT / 'tools'))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(ROOT / 'tools'))
        for name in MODULES:
            sys.modules.pop(name, None)


def _run_demo(folder, *args):
    command = [sys.executable, str(ROOT / 'tools' / 'demo.py'), '--quick', '--work-dir', str(folder / 'work')]
    return subprocess.run(
        [*command, '--data-root', str(folder / 'scenes'), *args], capture_output=True, text=True, cwd=folder
    )


@pytest.fixture(scope='module')
def smoke_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    done = _run_demo(folder, '--seed', '1')
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def _check_results(results):
    """Everything is finite and within its range."""
    pretraining = results['pretraining']
    assert set(pretraining) == {'loss', 'copy_baseline', 'target_std', 'target_mean_norm'}
    assert all(math.isfinite(value) for value in pretraining.values())
    assert -1 <= pretraining['loss'] <= 1 and -1 <= pretraining['copy_baseline'] <= 1
    assert pretraining['target_std'] > 0 and 0 < pretraining['target_mean_norm'] <= 1
    for start in ('random', 'nepa'):
        assert set(results['segmentation'][start]) == {'mIoU', 'pixel_accuracy'}
        for value in (*results['segmentation'][start].values(), results['linear'][start]['accuracy']):
            assert 0 <= value <= 100
    assert results['chance']['accuracy'] == pytest.approx(100 / 13)


def test_smoke_run(smoke_run):
    folder, output = smoke_run
    results = json.loads((folder / 'work' / 'results.json').read_text())
    _check_results(results)
    assert results['smoke'] is True and results['seed'] == 1 and results['reused'] == []
    assert tuple(results['seconds']) == STAGES == tuple(results['commands'])
    assert all('randomness.seed=1' in command for command in results['commands'].values())
    assert all(seconds > 0 for seconds in results['seconds'].values())
    assert results['curve']['step'] == [1, 2, 3, 4]
    assert len(results['curve']['loss']) == len(results['curve']['copy_baseline']) == 4
    assert results['pretraining']['loss'] == results['curve']['loss'][-1]
    assert 0.1 < results['peak_memory_gb'] < 6
    assert results['machine']['cores'] >= 1 and 'torch' in results['machine']['packages']

    # The table and the paths, with the numbers of results.json, marked as smoke numbers.
    assert output.count('SMOKE NUMBERS') == 2
    for name, key in (('UPerNet: mIoU', 'mIoU'), ('UPerNet: pixel accuracy', 'pixel_accuracy')):
        (line,) = [line for line in output.splitlines() if line.startswith(name)]
        expected = [f'{results["segmentation"][start][key]:.1f}' for start in ('random', 'nepa')]
        assert line.split()[-2:] == expected
    assert f'picture: {folder / "work" / "demo.png"}' in output
    assert f'results: {folder / "work" / "results.json"}' in output
    for number, title in enumerate(('compose scenes', 'pretrain NEPA', 'UPerNet from random', 'UPerNet from NEPA')):
        assert f'[{number + 1}/6] {title}' in output
    assert ' left, ' in output and '\r' not in output  # a pipe gets whole lines


def test_smoke_picture(smoke_run):
    folder, _ = smoke_run
    picture = np.asarray(Image.open(folder / 'work' / 'demo.png').convert('RGB'))
    assert picture.shape == (1122, 1650, 3)
    # Every class colour is in the legend, and the picture is not just paper.
    colors = {tuple(color.tolist()) for color in np.unique(picture.reshape(-1, 3), axis=0)}
    meta = json.loads((folder / 'scenes' / 'meta.json').read_text())
    assert {tuple(color) for color in meta['palette']} <= colors
    assert (picture != 255).any(axis=2).mean() > 0.2


def test_smoke_predictions(smoke_run):
    """Both segmentors wrote a prediction per validation scene, in the labels of the truth (1 + class)."""
    folder, _ = smoke_run
    scenes = sorted(p.stem for p in (folder / 'scenes' / 'images' / 'validation').iterdir())
    assert len(scenes) == 8
    for name in ('segment_random', 'segment_nepa'):
        files = sorted((folder / 'work' / name / 'predictions').iterdir())
        assert [file.stem for file in files] == scenes
        for file in files:
            mask = np.asarray(Image.open(file))
            assert mask.shape == (128, 128) and mask.min() >= 1 and mask.max() <= 13


def test_smoke_starts_differ_as_said(smoke_run):
    """NEPA's start is the pretraining's checkpoint, the other one loads nothing."""
    folder, _ = smoke_run
    checkpoint = folder / 'work' / 'pretrain' / 'iter_4.pth'
    assert checkpoint.is_file()
    for task in ('segment', 'linear'):
        assert str(checkpoint) in (folder / 'work' / f'{task}_nepa.log').read_text().partition('\n')[2]
        assert str(checkpoint) not in (folder / 'work' / f'{task}_random.log').read_text()


def test_resume_reuses_what_is_finished(smoke_run):
    folder, _ = smoke_run
    before = json.loads((folder / 'work' / 'results.json').read_text())
    done = _run_demo(folder, '--seed', '1', '--resume')
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('(reused)') == 5 and 'already there' in done.stdout
    after = json.loads((folder / 'work' / 'results.json').read_text())
    assert after['reused'] == list(STAGES)
    assert {k: after[k] for k in ('pretraining', 'segmentation', 'linear', 'seconds')} == {
        k: before[k] for k in ('pretraining', 'segmentation', 'linear', 'seconds')
    }


def test_resume_notices_changes(smoke_run, tools):
    """Another seed, other data or another start: nothing is taken over."""
    folder, _ = smoke_run

    def reusable(seed=1, change_data=False):
        demo = tools['demo'].Demo(folder / 'work', folder / 'scenes', True, seed, True, io.StringIO())
        demo.meta = json.loads((folder / 'scenes' / 'meta.json').read_text())
        if change_data:
            demo.meta['parameters']['size'] += 1
        for stage in demo.stages:
            demo._prepare(stage)
        return [stage.name for stage in demo.stages if demo._reuse(stage, folder / 'work' / stage.name / 'done.json')]

    assert reusable() == list(STAGES)
    assert reusable(seed=0) == []
    assert reusable(change_data=True) == []
    done = folder / 'work' / 'pretrain' / 'done.json'
    content = done.read_text()
    done.unlink()
    try:
        # What started from a pretraining that has to run again has to run again as well.
        assert reusable() == ['segment_random', 'linear_random']
    finally:
        done.write_text(content)


def test_starts_have_the_same_budget(tools):
    """The two configs of a task differ in the start alone, and fit the scenes."""
    stages = {stage.name: stage for stage in tools['demo'].make_stages()}
    assert tuple(stages) == STAGES
    spec = importlib.util.spec_from_file_location('scenes', ROOT / 'tools' / 'dataset_converters' / 'demo_scenes.py')
    scenes = importlib.util.module_from_spec(spec)
    sys.modules['scenes'] = scenes  # dataclasses look their module up
    try:
        spec.loader.exec_module(scenes)
    finally:
        del sys.modules['scenes']
    pretraining = Config.fromfile(tools['demo'].CONFIGS / stages['pretrain'].config, import_custom_modules=False)
    for task in ('segment', 'linear'):
        nepa, scratch = (
            Config.fromfile(tools['demo'].CONFIGS / stages[f'{task}_{start}'].config, import_custom_modules=False)
            for start in ('nepa', 'random')
        )
        assert scratch.model.backbone.pop('init_cfg') is None
        init_cfg = nepa.model.backbone.pop('init_cfg')
        # Run by hand in the order of the README, the configs find the checkpoint where the demo leaves it.
        assert init_cfg.checkpoint == f'work_dirs/demo/pretrain/iter_{pretraining.train_cfg.max_iters}.pth'
        assert nepa._cfg_dict == scratch._cfg_dict
        for key in ('arch', 'patch_size', 'layer_scale_init', 'qk_norm', 'mlp'):
            assert nepa.model.backbone[key] == pretraining.model.backbone[key]
        head = nepa.model.get('decode_head') or nepa.model.head
        assert head.num_classes == len(scenes.CLASSES)
        if task == 'segment':
            for loader in (nepa.train_dataloader, nepa.val_dataloader):
                assert tuple(loader.dataset.metainfo.classes) == scenes.CLASSES
                assert loader.dataset.reduce_zero_label is True
        else:
            assert nepa.model.backbone.frozen_stages == nepa.model.backbone.arch.num_layers


def test_failed_stage_shows_its_log(tools, tmp_path):
    code = 'for i in range(100): print("line", i)\nraise ValueError("the reason")'
    log = tmp_path / 'logs' / 'stage.log'
    with pytest.raises(tools['demo'].StageError) as error:
        tools['demo'].run_logged([sys.executable, '-c', code], log, 'my stage', lambda: None)
    message = str(error.value)
    assert '"my stage" failed with status 1' in message
    assert 'ValueError: the reason' in message and f'log: {log}' in message
    assert 'line 99' in message and 'line 3\n' not in message  # the end alone
    assert log.read_text().startswith(f'$ {sys.executable} -c ')
    with pytest.raises(tools['demo'].StageError, match='signal 9'):
        tools['demo'].run_logged(['sh', '-c', 'kill -9 $$'], log, 'my stage', lambda: None)


def test_failing_demo_as_a_process(tmp_path):
    """A folder that is not ours stops the demo at its first stage, with a word and status 1."""
    (tmp_path / 'scenes').mkdir()
    (tmp_path / 'scenes' / 'mine.txt').write_text('x')
    done = _run_demo(tmp_path)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert '"compose scenes" failed with status 1' in done.stderr
    assert 'was not written by demo_scenes' in done.stderr
    assert f'log: {tmp_path / "work" / "scenes.log"}' in done.stderr


def test_paths_that_cannot_be_options(tools):
    path_option = tools['demo'].path_option
    assert path_option(ROOT / 'work_dirs' / 'demo') == 'work_dirs/demo'
    assert path_option(Path('/somewhere/else')) == '/somewhere/else'
    for name in ('my code', 'a,b', '[a]', "it's"):
        with pytest.raises(tools['demo'].StageError, match='choose another --work-dir'):
            path_option(Path('/home') / name)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_a_file(tools):
    out = io.StringIO()
    progress = tools['demo_progress'].Progress(2, out)
    progress.begin('first')
    for percent in range(0, 101, 5):
        progress.update(percent / 100, f'{percent}/100 loss', '  0:05 left')
    progress.end('mIoU 50.0', 61.2)
    lines = out.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ['25%', '50%', '75%', 'done']
    assert lines[0].startswith('[1/2] first') and lines[0].endswith('25/100 loss  0:05 left')
    assert 'mIoU 50.0' in lines[-1] and lines[-1].endswith('1:01')


def test_progress_on_a_terminal(tools):
    out = _Terminal()
    progress = tools['demo_progress'].Progress(2, out)
    progress.begin('first')
    progress.update(0.5, '50/100', '')
    progress.end('mIoU 50.0', 61.2)
    *_, rewritten, rest = out.getvalue().split('\r')
    assert out.getvalue().count('\n') == 1 and out.getvalue().endswith('\n')  # one line per stage
    assert '[##########----------] 50/100' in rewritten
    assert 'mIoU 50.0' in rest


def test_time_left(tools):
    time_left = tools['demo_progress'].time_left
    # Twice as slow as planned: 60 s left here, and 2 * (30 + 30) for what comes after.
    assert time_left([100, 30, 30], [200], 60) == 60 + 120
    assert time_left([100, 30, 30], [200, 60], 10) == 10 + 60
    # A reused stage says nothing about this machine.
    assert time_left([100, 30, 30], [0, 15], 5) == 5 + 15
    assert tools['demo_progress'].clock(61.4) == '1:01'


def _records():
    pretrain = [
        dict(step=10 * i, loss=-0.1 * i, copy_baseline=-0.5, target_std=0.2, target_mean_norm=0.4) for i in range(1, 11)
    ]
    seg = [dict(step=250, loss=1.0), dict(step=250, mIoU=40.0, aAcc=60.0, mAcc=50.0)]
    linear = [dict(step=100, loss=1.0), {'accuracy/top1': 70.0, 'step': 100}]
    return dict(pretrain=pretrain, segment_random=seg, segment_nepa=seg, linear_random=linear, linear_nepa=linear)


def test_collect(tools):
    report = tools['demo_report']
    found = report.collect(_records(), 13)
    assert found['pretraining']['loss'] == pytest.approx(-1.0)  # the last tenth of ten records
    assert found['segmentation']['nepa'] == dict(mIoU=40.0, pixel_accuracy=60.0)
    assert found['linear']['random'] == dict(accuracy=70.0)
    assert 'NEPA beats it' in report.format_table(found)
    found['pretraining']['loss'] = -0.4
    assert 'NEPA does NOT beat it' in report.format_table(found)
    for run in _records():
        with pytest.raises(ValueError, match='logged no'):
            report.collect(_records() | {run: [dict(step=1)]}, 13)
