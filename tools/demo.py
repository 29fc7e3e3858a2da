"""The main job on images that come with the installation: pretrain NEPA, segment, classify.

No download, no GPU. Composes scenes from photographs, pretrains a small NEPA on the images alone, trains UPerNet from
it and, with the same budget, from random weights, fits a linear head on the frozen features of both, and ends with a
table and a picture. Every stage is a plain ``tools/train.py CONFIG --work-dir DIR``; the first line of its log is the
command, so all of it can be repeated and changed by hand. The configs lie in ``configs/demo``.

The scenes are written once. The runs are made anew each time, unless ``--resume`` asks to take over what an earlier
call finished with the very same configs, data and seed.

Usage: python tools/demo.py [--work-dir DIR] [--resume] [--quick]
"""

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import demo_report
from demo_progress import Progress, clock, time_left

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs' / 'demo'
PREDICTIONS = 'predictions'
LOG_TAIL = 20
# Seconds between two looks at a running stage.
POLL = 0.5
# A few seconds a stage: exercises everything, learns nothing.
QUICK_ITERS, QUICK_BATCH = 4, 4
QUICK_SCENES = ('--train', '24', '--val', '8', '--train-crops', '4', '--val-crops', '2')


class StageError(RuntimeError):
    """A stage failed; the message is what the user needs to see."""


@dataclass
class Stage:
    """One training run of the demo.

    Args:
        name: Its folder below the work directory.
        title: What the user reads.
        config: File name in configs/demo.
        seconds: About what it takes on two cores; only splits the time left before it runs.
        show: Turns the latest record of the log into a few words.
        start: Name of the stage whose checkpoint initialises the backbone, None for none.
        predicts: Whether its validation writes predictions.
    """

    name: str
    title: str
    config: str
    seconds: float
    show: Callable[[dict], str]
    start: str | None = None
    predicts: bool = False
    records: list[dict] = field(default_factory=list)
    elapsed: float = 0.0
    command: list[str] = field(default_factory=list)
    reused: bool = False


def _show_pretraining(record: dict) -> str:
    return f'loss {record["loss"]:.3f} (copying: {record["copy_baseline"]:.3f})' if 'copy_baseline' in record else ''


def _show_loss(record: dict) -> str:
    if 'mIoU' in record:
        return f'mIoU {record["mIoU"]:.1f}, pixel accuracy {record["aAcc"]:.1f}'
    if 'accuracy/top1' in record:
        return f'accuracy {record["accuracy/top1"]:.1f}'
    return f'loss {record["loss"]:.2f}' if 'loss' in record else ''


def make_stages() -> list[Stage]:
    """The training runs, in order."""
    nepa, scratch = 'nepa_d192l6-p8', 'nepa-scratch_d192l6-p8'
    seg, linear = 'upernet_1xb16-bf16-150it_demo-scenes-128x128.py', 'linear_1xb64-bf16-100it_demo-crops-96x96.py'
    return [
        Stage(
            'pretrain', 'pretrain NEPA', f'{nepa}_1xb16-bf16-coslr-1000it_demo-scenes-64x64.py', 250, _show_pretraining
        ),
        Stage('segment_random', 'UPerNet from random', f'{scratch}_{seg}', 120, _show_loss, predicts=True),
        Stage('segment_nepa', 'UPerNet from NEPA', f'{nepa}_{seg}', 120, _show_loss, start='pretrain', predicts=True),
        Stage('linear_random', 'linear head, random', f'{scratch}_{linear}', 25, _show_loss),
        Stage('linear_nepa', 'linear head, NEPA', f'{nepa}_{linear}', 25, _show_loss, start='pretrain'),
    ]


def read_records(path: Path) -> list[dict]:
    """Records of an mmengine scalars.json that may still be written: one JSON object a line."""
    records = []
    if path.exists():
        for line in path.read_text(encoding='utf-8').splitlines():
            with contextlib.suppress(ValueError):  # the last line may be half-written
                records.append(json.loads(line))
    return records


@contextlib.contextmanager
def running(command: list[str], log: TextIO) -> Iterator[subprocess.Popen]:
    """A child process that does not outlive this one's interest in it."""
    # The package beside this file, installed or not.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    environment = dict(os.environ, PYTHONPATH=path)
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def log_tail(path: Path) -> str:
    """The end of a log, indented."""
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    return '\n'.join(f'    {line}' for line in lines[-LOG_TAIL:])


def run_logged(command: list[str], log_path: Path, title: str, watch: Callable[[], None]) -> None:
    """Run a command with its output in a file.

    Args:
        command: The command.
        log_path: File for its output; begins with the command, to be repeated by hand.
        title: Name of the stage, for the message.
        watch: Called twice a second while it runs.

    Raises:
        StageError: If it fails; holds the end of the log and its path.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path, 'w', encoding='utf-8') as log:
        log.write(f'$ {shlex.join(command)}\n')
        log.flush()
        with running(command, log) as process:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
                    break
                watch()
    if process.returncode:
        how = f'signal {-process.returncode}' if process.returncode < 0 else f'status {process.returncode}'
        raise StageError(f'"{title}" failed with {how}. The end of its log:\n{log_tail(log_path)}\nlog: {log_path}')


def path_option(path: Path) -> str:
    """A path as a value of ``--cfg-options``: below the repository as seen from there, where the runs start.

    Raises:
        StageError: If mmengine would misread it: it drops blanks and takes commas and brackets for lists.
    """
    text = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    if set(text) & set(' ,()[]"\''):
        raise StageError(
            f'{text!r} holds blanks, commas, brackets or quotes, which --cfg-options cannot take; choose '
            'another --work-dir and --data-root'
        )
    return text


class Demo:
    """The demo: its folders, its stages and what they found.

    Args:
        work_dir: Folder for logs, checkpoints and results.
        data_root: Folder of the scenes.
        quick: Whether to train for a few iterations only.
        seed: Seed of the runs.
        resume: Whether to reuse finished stages of an earlier call.
        out: Where to write progress.
    """

    def __init__(self, work_dir: Path, data_root: Path, quick: bool, seed: int, resume: bool, out: TextIO) -> None:
        self.work_dir = work_dir
        self.data_root = data_root
        self.quick = quick
        self.seed = seed
        self.resume = resume
        self.stages = make_stages()
        self.by_name = {stage.name: stage for stage in self.stages}
        self.configs: dict[str, Any] = {}
        self.fingerprints: dict[str, str] = {}
        self.progress = Progress(1 + len(self.stages), out)

    def run(self) -> None:
        """Run all stages.

        Raises:
            StageError: If one fails.
        """
        self._make_scenes()
        for stage in self.stages:
            self._prepare(stage)
        for stage in self.stages:
            self._train(stage)

    def _make_scenes(self) -> None:
        begin = time.time()
        self.progress.begin('compose scenes')
        tool = ROOT / 'tools' / 'dataset_converters' / 'demo_scenes.py'
        command = [sys.executable, str(tool), str(self.data_root), *(QUICK_SCENES if self.quick else ())]
        log_path = self.work_dir / 'scenes.log'
        run_logged(command, log_path, 'compose scenes', lambda: None)
        self.meta = json.loads((self.data_root / 'meta.json').read_text(encoding='utf-8'))
        files = self.meta['files']
        words = (
            f'{files["images/training"]} + {files["images/validation"]} scenes, {len(self.meta["classes"])} classes'
            + (', already there' if 'already there' in log_path.read_text(encoding='utf-8') else '')
        )
        self.progress.end(words, time.time() - begin)

    def _prepare(self, stage: Stage) -> None:
        """Read a stage's config; settle its command and its fingerprint."""
        from mmengine.config import Config

        path = CONFIGS / stage.config
        cfg = Config.fromfile(path, import_custom_modules=False)  # saves importing torch and the hosts
        folder = self.work_dir / stage.name
        # Settings that depend on where the demo runs; everything else is the config's.
        options = {'randomness.seed': self.seed}
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(loader):
                # a classification data set names its subset in data_root
                below = Path(cfg[loader].dataset.data_root).relative_to(cfg.demo_scenes)
                options[f'{loader}.dataset.data_root'] = path_option(self.data_root / below)
        if stage.start:
            options['model.backbone.init_cfg.checkpoint'] = path_option(self.checkpoint(self.by_name[stage.start]))
        if stage.predicts:
            options['val_evaluator.output_dir'] = path_option(folder / PREDICTIONS)
        if self.quick:
            options.update(
                {
                    'train_cfg.max_iters': QUICK_ITERS,
                    'default_hooks.checkpoint.interval': QUICK_ITERS,
                    'default_hooks.logger.interval': 1,
                    'train_dataloader.batch_size': QUICK_BATCH,
                }
            )
            if cfg.get('val_cfg'):
                options['train_cfg.val_interval'] = QUICK_ITERS
        cfg.merge_from_dict(options)
        self.configs[stage.name] = cfg
        stage.command = [
            sys.executable,
            *('-W', 'ignore'),  # the hosts warn a lot about their own dependencies
            str(ROOT / 'tools' / 'train.py'),
            str(path),
            *('--work-dir', str(folder)),
            *('--cfg-options', *(f'{key}={value}' for key, value in options.items())),
        ]
        parts = [cfg.pretty_text, json.dumps(self.meta['parameters']), self.fingerprints.get(stage.start or '', '')]
        self.fingerprints[stage.name] = hashlib.sha256('\n'.join(parts).encode()).hexdigest()

    def checkpoint(self, stage: Stage) -> Path:
        """The checkpoint that a stage ends with."""
        return self.work_dir / stage.name / f'iter_{self.configs[stage.name].train_cfg.max_iters}.pth'

    def _train(self, stage: Stage) -> None:
        self.progress.begin(stage.title)
        folder = self.work_dir / stage.name
        done = folder / 'done.json'
        if self.resume and self._reuse(stage, done):
            self.progress.end(f'{stage.show(stage.records[-1])} (reused)', stage.elapsed)
            return
        done.unlink(missing_ok=True)
        before = set(folder.glob('*/vis_data/scalars.json'))
        begin = time.time()
        total = self.configs[stage.name].train_cfg.max_iters
        first: list[tuple[float, int]] = []  # when the first record came, and its iteration

        def watch() -> None:
            new = sorted(set(folder.glob('*/vis_data/scalars.json')) - before)
            records = [record for record in read_records(new[-1]) if 'loss' in record] if new else []
            if not records:
                return
            now, step = time.time(), records[-1]['step']
            if not first:
                first.append((now, step))
            pace = (now - first[0][0]) / (step - first[0][1]) if step > first[0][1] else records[-1]['time']
            in_stage = pace * (total - step)
            took = [0.0 if earlier.reused else earlier.elapsed for earlier in self.stages[: self.stages.index(stage)]]
            planned = [each.seconds for each in self.stages]
            everything = time_left(planned, [*took, now - begin + in_stage], in_stage)
            words = f'{step:>3}/{total}  {stage.show(records[-1]):<35}' if step < total else f'{"evaluating":<44}'
            left = f'{clock(in_stage):>5} left, {clock(everything)} in all'
            self.progress.update(step / total, words, left)

        log_path = self.work_dir / f'{stage.name}.log'
        run_logged(stage.command, log_path, stage.title, watch)
        new = sorted(set(folder.glob('*/vis_data/scalars.json')) - before)
        stage.records = read_records(new[-1]) if new else []
        if not stage.records:
            raise StageError(
                f'"{stage.title}" ended without a record in {folder}/*/vis_data/scalars.json\nlog: {log_path}'
            )
        stage.elapsed = time.time() - begin
        summary = dict(fingerprint=self.fingerprints[stage.name], elapsed=stage.elapsed, records=stage.records)
        done.write_text(json.dumps(summary), encoding='utf-8')
        self.progress.end(stage.show(stage.records[-1]), stage.elapsed)

    def _reuse(self, stage: Stage, done: Path) -> bool:
        """Take over what an earlier call found, if it ran the same config on the same data from the same start."""
        try:
            old = json.loads(done.read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return False
        start = self.by_name.get(stage.start or '')
        if (
            old.get('fingerprint') != self.fingerprints[stage.name]
            or not self.checkpoint(stage).is_file()
            or (start is not None and not start.reused)
        ):
            return False
        stage.records, stage.elapsed, stage.reused = old['records'], old['elapsed'], True
        return True

    def results(self) -> dict[str, Any]:
        """What results.json holds."""
        try:
            found = demo_report.collect({stage.name: stage.records for stage in self.stages}, len(self.meta['classes']))
        except ValueError as error:
            raise StageError(f'{error}\nlogs: {self.work_dir}/*.log') from error
        return dict(
            smoke=self.quick,
            **found,
            seed=self.seed,
            date=time.strftime('%Y-%m-%d'),
            machine=demo_report.machine(),
            seconds={stage.name: round(stage.elapsed, 1) for stage in self.stages},
            # of the largest process; a data worker shares most of its memory with the run that it belongs to
            peak_memory_gb=round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
            reused=[stage.name for stage in self.stages if stage.reused],
            commands={stage.name: shlex.join(stage.command) for stage in self.stages},
        )

    def image_folders(self) -> dict[str, Path]:
        """Where the images of the picture lie."""
        return dict(
            photo=self.data_root / 'images' / 'validation',
            truth=self.data_root / 'annotations' / 'validation',
            random=self.work_dir / 'segment_random' / PREDICTIONS,
            nepa=self.work_dir / 'segment_nepa' / PREDICTIONS,
        )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Pretrain a small NEPA, segment from it and from random weights, fit linear heads; no download, '
        'no GPU, about ten minutes on two cores. Ends with a table and a picture.'
    )
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results (default: work_dirs/demo)')
    parser.add_argument('--data-root', help='folder of the scenes, made when missing (default: data/demo_scenes)')
    parser.add_argument(
        '--resume', action='store_true', help='reuse the stages that an earlier call finished with the same settings'
    )
    parser.add_argument(
        '--quick', action='store_true', help='smoke test: a few iterations a stage, meaningless numbers'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the training runs (default: 0)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    args = parse_args(argv)
    kind = '_quick' if args.quick else ''
    work_dir = Path(args.work_dir).resolve() if args.work_dir else ROOT / 'work_dirs' / f'demo{kind}'
    data_root = Path(args.data_root).resolve() if args.data_root else ROOT / 'data' / f'demo_scenes{kind}'
    # So that a kill does not leave a training run behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begin = time.time()
    demo = Demo(work_dir, data_root, args.quick, args.seed, args.resume, sys.stdout)
    if args.quick:
        print(demo_report.SMOKE)
    print(f'Logs: {work_dir}/*.log', flush=True)
    try:
        demo.run()
        results = demo.results()
        results_file, picture = work_dir / 'results.json', work_dir / 'demo.png'
        results_file.write_text(json.dumps(results, indent=2) + '\n', encoding='utf-8')
        demo_report.draw_picture(results, demo.meta, demo.image_folders(), picture)
    except StageError as error:
        demo.progress.interrupt()
        print(f'demo: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        demo.progress.interrupt()
        print('demo: stopped; --resume goes on with the stages that were not finished', file=sys.stderr)
        return 130
    print(f'\n{demo_report.format_table(results)}')
    if args.quick:
        print(demo_report.SMOKE)
    print(f'\nresults: {results_file}\npicture: {picture}\ntime:    {clock(time.time() - begin)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
