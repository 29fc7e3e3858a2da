"""tools/test.py: a test run, and the files it leaves."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.fileio import dump
from mmengine.runner import Runner

from nepa_mm.evaluation.per_class import PerClassMetric, check_matrix_file

from .cli import UsageError

PREDICTION_FILES = ('.pkl', '.pickle')
METRIC_FILES = ('.json', '.yaml', '.yml', '.pkl', '.pickle')


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse files that a test could not write, before anything is built.

    Args:
        args (argparse.Namespace): Arguments of tools/test.py.

    Raises:
        UsageError: ``--out``, ``--out-item`` and ``--confusion-matrix`` do not fit each other.
    """
    if args.out_item is not None and args.out is None:
        raise UsageError('--out-item says what goes into --out, which is missing')
    _out_kind(args)
    for file in args.confusion_matrix or ():
        try:
            check_matrix_file(file)
        except ValueError as error:
            raise UsageError(f'--confusion-matrix: {error}') from error


def run_test(runner: Runner, args: argparse.Namespace) -> dict:
    """Test, and write the per-class tables and what ``--out`` and ``--confusion-matrix`` ask for.

    Args:
        runner (Runner): From :func:`build_runner`.
        args (argparse.Namespace): Arguments of tools/test.py.

    Returns:
        dict: The metrics.

    Raises:
        UsageError: If ``--out`` is a directory, and no metric of the config writes predictions or two images would be
            written to one file.
    """
    kind = _out_kind(args)
    if kind == 'directory':
        metrics = runner.test_evaluator.metrics
        writers = [metric for metric in metrics if hasattr(metric, 'output_dir')]
        if not writers:
            names = ', '.join(type(metric).__name__ for metric in metrics)
            raise UsageError(
                f'--out {args.out}: no metric of this config ({names}) writes predictions into a '
                'directory; give a file: --out predictions.pkl, or --out metrics.json '
                '--out-item metrics'
            )
        _refuse_same_names(runner.test_dataloader.dataset)
        # By every process: nodes need not share a disk, and the first need not come first.
        os.makedirs(args.out, exist_ok=True)
        for metric in writers:
            metric.output_dir = args.out
            # metrics that clean up after themselves (Cityscapes') must not remove the user's output
            metric.keep_results = True
    elif kind == 'pred':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    _count_classes(runner, args)
    results = runner.test()
    if kind == 'metrics' and is_main_process():
        dump(results, args.out)
    return results


def _out_kind(args: argparse.Namespace) -> str | None:
    """What ``--out`` is: 'metrics' or 'pred' (files), 'directory', or None."""
    if args.out is None:
        return None
    suffix = Path(args.out).suffix
    if args.out_item == 'metrics' and suffix not in METRIC_FILES:
        raise UsageError(f'--out {args.out}: metrics go into a file, {" or ".join(METRIC_FILES)}')
    if args.out_item == 'metrics':
        return 'metrics'
    if suffix in PREDICTION_FILES:
        return 'pred'
    if args.out_item == 'pred' or suffix in METRIC_FILES:
        raise UsageError(f'--out {args.out}: predictions go into a .pkl file; metrics need --out-item metrics')
    return 'directory'


def _count_classes(runner: Runner, args: argparse.Namespace) -> None:
    """Have the run write per-class tables beside its log, and the confusion matrix where it is asked for."""
    evaluator = runner.test_evaluator
    ignored = {metric.ignore_index for metric in evaluator.metrics if hasattr(metric, 'ignore_index')}
    metric = PerClassMetric(
        out_dir=runner.log_dir,
        confusion_matrix=args.confusion_matrix or (),
        ignore_index=ignored.pop() if len(ignored) == 1 else 255,
    )
    metric.dataset_meta = evaluator.dataset_meta
    evaluator.metrics.append(metric)


def _refuse_same_names(dataset: Any) -> None:
    """Refuse images whose label maps, named by the stem alone, would overwrite each other."""
    seen: dict[str, str] = {}
    for i in range(len(dataset) if hasattr(dataset, 'get_data_info') else 0):
        path = str(dataset.get_data_info(i).get('img_path', i))
        other = seen.setdefault(Path(path).stem, path)
        if other != path:
            raise UsageError(
                f'--out: the label maps of {other} and {path} would be one file, for mmseg names them by the stem '
                'alone; give a .pkl file, or test one folder at a time'
            )
