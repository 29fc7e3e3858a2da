"""The runner around the step, beside a bare loop; and what passes before the first step."""

import argparse
import sys

import torch

from nepa_mm.models.backbones.archs import ARCHS

from .loop_pace import Pace, keep_pace
from .report import Report
from .startup import first_step, help_text

HELP = """Time an iteration of tools/train.py's runner beside a bare loop over the same model and data, in turns; what
runner and hooks add to a model so small that it shows, at the start of a run and late in it; and what passes before the
first step."""
# Of the issue: runner over bare loop; seconds of --help and of the way to the first step.
LOOP_TARGET, HELP_TARGET, START_TARGET = 1.03, 2.0, 12.0
SMALL = dict(embed_dims=64, num_layers=2, num_heads=2, feedforward_channels=128)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``benchmark.py loop``."""
    parser.add_argument('--arch', default='base', choices=list(ARCHS), help='size of the model')
    parser.add_argument('--img-size', type=int, default=224, help='side of the square image in pixels')
    parser.add_argument('--batch-size', type=int, default=8, help='images')
    parser.add_argument('--iters', type=int, default=7, help='timed iterations; 0 leaves this part out')
    parser.add_argument('--small-iters', type=int, default=150, help='of the small model; 0 leaves this part out')
    parser.add_argument('--past', type=int, default=500_000, help='iterations behind a run, for its late part')
    parser.add_argument('--starts', type=int, default=5, help='starts of tools/train.py; 0 leaves this part out')
    parser.add_argument('--warmup', type=int, default=1, help='iterations before, not timed')
    parser.add_argument('--threads', type=int, default=2, help='threads of torch on the CPU')


def run(args: argparse.Namespace) -> Report:
    """Measure.

    Args:
        args (argparse.Namespace): See :func:`add_arguments`.

    Returns:
        Report: Seconds per iteration and their quotient, milliseconds that a runner adds, seconds of starts.
    """
    torch.set_num_threads(args.threads)
    report = Report('loop', command=' '.join(['python tools/analysis/benchmark.py loop', *sys.argv[2:]]))
    report.settings = dict(arch=args.arch, img_size=args.img_size, batch_size=args.batch_size, dtype='bf16 autocast')
    if args.iters:
        pace = keep_pace(args.arch, args.img_size, args.batch_size, args.iters, args.warmup)
        report.add('bare iteration', pace.bare, 's', note='forward, backward, clip, AdamW, EMA')
        report.add('iteration of NEPARunner', pace.runner, 's', limit='bare iteration')
        report.add('NEPARunner / bare', pace.quotients, 'ratio', target=('<=', LOOP_TARGET), limit='1')
        report.add('parameter groups', [pace.num_groups], 'groups')
    if args.small_iters:
        _add_small(report, args)
    if args.starts:
        report.add('train.py --help', [help_text() for _ in range(args.starts)], 's', target=('<=', HELP_TARGET))
        starts = [first_step() for _ in range(args.starts)]
        note = 'demo model: NEPA of 6 layers, 64 x 64, batch 16'
        report.add('config to first step', starts, 's', target=('<=', START_TARGET), note=note)
    return report


def _add_small(report: Report, args: argparse.Namespace) -> None:
    """What each runner adds to an iteration: at once, and with a long run behind it."""

    def pace(past: int, stock: bool) -> Pace:
        return keep_pace(SMALL, 28, 2, args.small_iters, args.warmup, past=past, stock=stock)

    for name, stock in (('NEPARunner', False), ("mmengine's Runner", True)):
        for past in (0, args.past):
            when = f'after {past:,} iterations' if past else 'at the start'
            report.add(f'{name} adds, {when}', [1000 * s for s in pace(past, stock).added], 'ms')
