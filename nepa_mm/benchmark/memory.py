"""Memory of a pretraining step: activations per image, beside timm's blocks and with activation checkpointing."""

import argparse
import sys

from nepa_mm.models.backbones.archs import ARCHS

from .memory_process import measure_in_process
from .report import Report

HELP = """Measure the peak of memory of pretraining steps, each variant in a process of its own: resident memory on a
CPU (Linux), allocated memory on a GPU; less what interpreter, weights and gradients take."""
VARIANTS = ('step', 'timm blocks', 'with_cp')
# The release at ViT-B/14, 224, batch 8, fp32: resident in all, and of it interpreter, weights and gradients.
RELEASE, RELEASE_BEFORE = 4.2e9, 1.2e9
SHARE, SAVING = 0.8, 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``benchmark.py memory``."""
    parser.add_argument('--arch', default='base', choices=list(ARCHS), help='size of the model')
    parser.add_argument('--num-layers', type=int, help='layers instead of those of --arch')
    parser.add_argument('--mlp', default='gelu', choices=['gelu', 'swiglu'], help='MLP')
    parser.add_argument('--img-size', type=int, default=224, help='side of the square image in pixels')
    parser.add_argument('--batch-size', type=int, default=8, help='images')
    parser.add_argument('--dtype', default='both', choices=['fp32', 'bf16', 'both'], help='bf16 is autocast')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'], help='where')
    parser.add_argument('--threads', type=int, default=2, help='threads of torch on the CPU')


def run(args: argparse.Namespace) -> Report:
    """Measure.

    Args:
        args (argparse.Namespace): See :func:`add_arguments`.

    Returns:
        Report: Per dtype and variant, MB in all and per image, and quotients.
    """
    arch = dict(ARCHS[args.arch])
    arch['num_layers'] = args.num_layers or arch['num_layers']
    grid = (args.img_size // 14, args.img_size // 14)
    report = Report('memory', command=' '.join(['python tools/analysis/benchmark.py memory', *sys.argv[2:]]))
    named = ('arch', 'num_layers', 'mlp', 'img_size', 'batch_size', 'device', 'threads')
    report.settings = {k: v for k, v in vars(args).items() if k in named}
    is_release = (args.arch, args.num_layers, args.mlp, args.img_size, args.batch_size, args.device) == (
        'base', None, 'gelu', 224, 8, 'cpu',
    )  # fmt: skip
    for dtype in ('fp32', 'bf16') if args.dtype == 'both' else (args.dtype,):
        activations = {}
        for variant in VARIANTS:
            got = measure_in_process(
                arch=arch,
                grid=grid,
                mlp=args.mlp,
                batch_size=args.batch_size,
                dtype=dtype,
                variant=variant,
                device=args.device,
                threads=args.threads,
            )
            activations[variant] = got['activations']
            whole = variant == 'step' and dtype == 'fp32' and is_release
            target = ('<=', (RELEASE_BEFORE + SHARE * (RELEASE - RELEASE_BEFORE)) / 1e6) if whole else None
            note = f'of it before the step {got["before"] / 1e6:.0f}'
            report.add(f'{dtype} {variant}, peak', [got['peak'] / 1e6], 'MB', target, note=note)
            report.add(f'{dtype} {variant}, per image', [got['activations'] / args.batch_size / 1e6], 'MB')
        own = activations['step']
        report.add(f'{dtype} step / timm blocks', [own / activations['timm blocks']], 'ratio', note='activations')
        report.add(
            f'{dtype} step / with_cp', [own / activations['with_cp']], 'ratio', ('>=', SAVING), note='activations'
        )
    return report
