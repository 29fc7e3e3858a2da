"""Probe every layer of a checkpoint: k-NN and linear accuracy over depth, in one pass over the images."""

import argparse
import os
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Parse the command line; nothing heavy is imported before, so ``--help`` is quick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='classification config, or a pretraining config with --train-data')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint file, release directory, hf://OWNER/NAME[@REVISION] or URL of a file'
    )
    parser.add_argument(
        '--random-weights', action='store_true', help='no checkpoint: probe the untrained network, to compare with'
    )
    parser.add_argument(
        '--weights', choices=['raw', 'ema'], default='raw', help='of a checkpoint that holds both (default: raw)'
    )
    parser.add_argument(
        '--layers',
        default='all',
        help='all, or a list such as embed,0,5,-1: indices as in out_indices; embed is the patch embedding',
    )
    parser.add_argument(
        '--pool',
        default='avg,last',
        help='list of avg (mean of patches), avg_norm (mean of normalised patches), last (patch), bos '
        '(default: avg,last)',
    )
    parser.add_argument('--knn', action='store_true', help='k-NN probe (default: both probes)')
    parser.add_argument('--linear', action='store_true', help='linear probe (default: both probes)')
    parser.add_argument('--k', type=int, nargs='+', default=[10, 20, 100], help='neighbours (default: 10 20 100)')
    parser.add_argument(
        '--attention', choices=['causal', 'bidirectional'], help="attention to probe with (default: the config's)"
    )
    parser.add_argument('--train-data', help="folder with a folder per class, instead of the config's training set")
    parser.add_argument(
        '--val-data', help='the same to score on (default: a fifth of each class of --train-data is held out)'
    )
    parser.add_argument(
        '--image-size',
        type=int,
        help='shorter side is resized to 8/7 of this, and the centre cropped (default: as the config evaluates; for '
        'pretraining configs, the size of the training crops)',
    )
    parser.add_argument('--batch-size', type=int, default=64)
    workers = min(4, os.cpu_count() or 1)
    parser.add_argument(
        '--num-workers', type=int, default=workers, help=f'processes that load images (default: {workers})'
    )
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on CPU and GPU')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    parser.add_argument(
        '--feature-dtype',
        choices=['float32', 'float16'],
        default='float32',
        help='of kept features; float16 halves the disk space (default: float32)',
    )
    parser.add_argument('--work-dir', help='folder for results (default: ./work_dirs/probe_CONFIG_NAME)')
    parser.add_argument('--cache-dir', help='folder for kept features (default: features/ in the work dir)')
    parser.add_argument('--no-cache', action='store_true', help='keep features in memory only')
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE', help='settings that override the config'
    )
    return parser.parse_args()


def main() -> None:
    """Probe."""
    args = parse_args()
    try:
        from nepa_mm.apis import cli, probing
        from nepa_mm.checkpoints import CheckpointError
        from nepa_mm.datasets import DataError
    except ModuleNotFoundError as error:
        if error.name != 'nepa_mm':
            raise
        sys.exit(
            f'probe.py: nepa_mm is not installed for {sys.executable}; run "source .venv/bin/activate" (after make '
            'install), or "pip install -e .[openmm]"'
        )

    try:
        probing.run_probe(args, Path(__file__).resolve().parents[2] / 'configs')
    except (cli.UsageError, CheckpointError, DataError) as error:
        sys.exit(f'probe.py: {error}')


if __name__ == '__main__':
    main()
