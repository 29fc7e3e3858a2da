"""Time and memory of a pretraining step against the number of tokens of an image."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from nepa_mm.models.backbones.archs import ARCHS

from .memory_process import measure_in_process
from .report import Report
from .tokens_plot import draw_tokens

HELP = """Measure time and peak memory of a pretraining step of one image from 256 to 16,384 tokens, fit the exponents
and draw both. Each size runs in a process of its own."""
PATCH = 4  # pixels; small, so that the image itself weighs little
LARGEST_EXPONENT = 1.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``benchmark.py tokens``."""
    parser.add_argument('--arch', default='tiny', choices=list(ARCHS), help='width of the model')
    parser.add_argument('--num-layers', type=int, default=2, help='layers; time and memory are proportional to them')
    parser.add_argument('--sides', type=int, nargs='+', default=[16, 32, 64, 128], help='patches along a side')
    parser.add_argument('--dtype', default='fp32', choices=['fp32', 'bf16'], help='bf16 is autocast')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'], help='where')
    parser.add_argument('--threads', type=int, default=2, help='threads of torch on the CPU')
    parser.add_argument('--rounds', type=int, default=3, help='processes per size')


def run(args: argparse.Namespace) -> Report:
    """Measure and draw.

    Args:
        args (argparse.Namespace): See :func:`add_arguments`; ``tokens.png`` goes into ``out_dir``.

    Returns:
        Report: Per size milliseconds and kilobytes per token, and the two exponents.

    Raises:
        ValueError: Fewer than two sizes, or one that is not positive: there is no exponent.
    """
    sides = sorted(set(args.sides))
    if len(sides) < 2 or sides[0] < 1:
        raise ValueError(
            f'benchmark.py tokens: --sides {args.sides} is no list of at least two different positive sizes.'
        )
    report = Report('tokens', command=' '.join(['python tools/analysis/benchmark.py tokens', *sys.argv[2:]]))
    report.settings = {k: v for k, v in vars(args).items() if k in ('arch', 'num_layers', 'dtype', 'device', 'threads')}
    arch = ARCHS[args.arch] | dict(num_layers=args.num_layers)
    tokens = [side**2 for side in sides]
    milliseconds: list[list[float]] = []
    kilobytes: list[list[float]] = []
    for side, count in zip(sides, tokens, strict=True):
        got = [
            measure_in_process(
                arch=arch,
                grid=(side, side),
                patch_size=PATCH,
                batch_size=1,
                dtype=args.dtype,
                device=args.device,
                threads=args.threads,
            )
            for _ in range(args.rounds)
        ]
        milliseconds.append([1e3 * one['seconds'] / count for one in got])
        kilobytes.append([one['activations'] / 1e3 / count for one in got])
        report.add(f'{count} tokens, time', milliseconds[-1], 'ms/token')
        report.add(f'{count} tokens, memory', kilobytes[-1], 'kB/token')
    time_exponents, memory_exponents = (
        [exponent(tokens, [v * n for v, n in zip(values, tokens, strict=True)]) for values in zip(*per, strict=True)]
        for per in (milliseconds, kilobytes)
    )
    report.add('exponent of time', time_exponents, '', limit='1 for the linear layers, 2 for attention')
    report.add('exponent of memory', memory_exponents, '', ('<=', LARGEST_EXPONENT), limit='1: no T x T matrix')
    medians = [[sorted(v)[len(v) // 2] for v in per] for per in (milliseconds, kilobytes)]
    folder = Path(args.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    draw_tokens(tokens, medians[0], medians[1], folder / 'tokens.png')
    return report


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent p of the best fit ``value = c * size**p``: the slope of the logarithms by least squares.

    Args:
        sizes (Sequence[float]): Positive, at least two different ones.
        values (Sequence[float]): As many, positive.

    Returns:
        float: The exponent.
    """
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    middle = sum(x) / len(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)
