"""Train a model from a config file."""

import argparse
import os
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Parse the command line; nothing heavy is imported before, so ``--help`` is quick."""
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: ./work_dirs/CONFIG_NAME)')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint; without a value, or with "auto", from the last one in '
        'the work dir, and from the beginning if there is none',
    )
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on CPU and GPU')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the lr by (processes x batch x accumulation) / auto_scale_lr.base_batch_size',
    )
    parser.add_argument('--no-pin-memory', action='store_true', help='do not pin the memory of loaded batches')
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='start the data workers anew every epoch',
    )
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
    """Train."""
    args = parse_args()
    try:
        from nepa_mm.apis import cli, run_config
    except ModuleNotFoundError as error:
        if error.name != 'nepa_mm':
            raise
        sys.exit(
            f'train.py: nepa_mm is not installed for {sys.executable}; run "source .venv/bin/activate" (after make '
            'install), or "pip install -e .[openmm]"'
        )

    from nepa_mm.checkpoints import CheckpointError
    from nepa_mm.datasets import DataError
    from nepa_mm.engine import BadNumbersError, RunStopped

    try:
        cfg = run_config.train_config(args, Path(__file__).resolve().parents[1] / 'configs')
        cli.build_runner(cfg).train()
    except (cli.UsageError, CheckpointError, DataError, BadNumbersError) as error:
        sys.exit(f'train.py: {error}')
    except RunStopped:
        cli.close_process_group()
        raise
    cli.close_process_group()


if __name__ == '__main__':
    main()
