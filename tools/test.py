"""Test a checkpoint on the test set of a config file."""

import argparse
import os
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Parse the command line; nothing heavy is imported before, so ``--help`` is quick."""
    parser = argparse.ArgumentParser(description='Test a checkpoint')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', help='checkpoint file, release directory, hf://OWNER/NAME[@REVISION] or URL of a file'
    )
    parser.add_argument(
        '--weights',
        choices=['raw', 'ema'],
        help='which weights of a checkpoint that holds both (default: the average of a run with an EMA hook, '
        'model.safetensors of a release directory)',
    )
    parser.add_argument('--work-dir', help='folder for logs and metrics (default: ./work_dirs/CONFIG_NAME)')
    parser.add_argument(
        '--out',
        help='where results go. A .pkl file: the predictions of all samples, or with --out-item '
        'metrics the metrics (.json and .yaml too). Anything else: a directory into which '
        'segmentation metrics write one label map per image',
    )
    parser.add_argument('--out-item', choices=['metrics', 'pred'], help='what goes into a file (default: pred)')
    parser.add_argument(
        '--confusion-matrix',
        nargs='+',
        metavar='FILE',
        help='write which class is taken for which: .png and .csv with rows normalised to 1, .json with counts',
    )
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument(
        '--interval',
        type=int,
        default=1,
        help='picture every N-th sample (mmseg pictures all of them when testing)',
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that a window of --show stays')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation by the config's tta_model and tta_pipeline",
    )
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on CPU and GPU')
    parser.add_argument('--no-pin-memory', action='store_true', help='do not pin the memory of loaded batches')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='settings that override the config and all arguments above; lists as key="[a,b]" or '
        'key=a,b, nested ones as key="[(a,b),(c,d)]", without white space',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by some launchers')
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    """Test."""
    args = parse_args()
    try:
        from nepa_mm.apis import cli, run_config, testing
    except ModuleNotFoundError as error:
        if error.name != 'nepa_mm':
            raise
        sys.exit(
            f'test.py: nepa_mm is not installed for {sys.executable}; run "source .venv/bin/activate" (after make '
            'install), or "pip install -e .[openmm]"'
        )

    from nepa_mm.checkpoints import CheckpointError
    from nepa_mm.datasets import DataError

    try:
        cfg = run_config.test_config(args, Path(__file__).resolve().parents[1] / 'configs')
        testing.run_test(cli.build_runner(cfg), args)
    except (cli.UsageError, CheckpointError, DataError) as error:
        sys.exit(f'test.py: {error}')
    cli.close_process_group()


if __name__ == '__main__':
    main()
