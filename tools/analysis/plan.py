"""What the training run of a config will need: parameters, FLOPs, memory per GPU by batch, hours, GPU-hours."""

import argparse
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Parse the command line; nothing heavy is imported before, so ``--help`` is quick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a training config, or the name of one of configs/')
    parser.add_argument('--gpus', type=int, default=8, help='number of GPUs (default: 8)')
    parser.add_argument(
        '--gpu',
        default='h100',
        help='which: b200, h200, h100, h100-pcie, a100-80g, a100-40g, l40s, l4, a10, a6000, rtx3090, rtx4090, rtx5090, '
        'v100, t4 (default: h100)',
    )
    parser.add_argument('--images', type=int, help='of the training set (default: known for the public ones)')
    parser.add_argument(
        '--measured',
        nargs='+',
        metavar='FILE',
        help='measured rates, such as work_dirs/gpu_check/measured.json of make gpu-check; they come before those that '
        'are published',
    )
    parser.add_argument('--json', action='store_true', help='print JSON, with every figure in its unit')
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE', help='settings that override the config'
    )
    return parser.parse_args()


def main() -> None:
    """Plan."""
    args = parse_args()
    try:
        from nepa_mm.apis.cli import UsageError
        from nepa_mm.benchmark.plan_command import run_plan
    except ModuleNotFoundError as error:
        if error.name != 'nepa_mm':
            raise
        sys.exit(
            f'plan.py: nepa_mm is not installed for {sys.executable}; run "source .venv/bin/activate" (after make '
            'install), or "pip install -e .[openmm]"'
        )

    here = Path(__file__).resolve()
    try:
        run_plan(args, here.parents[2] / 'configs', here.parent / 'measured.json')
    except UsageError as error:
        sys.exit(f'plan.py: {error}')


if __name__ == '__main__':
    main()
