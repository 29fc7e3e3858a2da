"""Tests and benchmarks of a machine's GPU in under 8 minutes; without a GPU it says so and does nothing.

Writes gpu_check.md, gpu_check.json, and measured.json for tools/analysis/plan.py --measured.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out-dir', default='work_dirs/gpu_check', help='folder of the results (default: %(default)s)')
    args = parser.parse_args()
    try:
        from nepa_mm.benchmark.gpu_check import check
    except ModuleNotFoundError as error:
        if error.name != 'nepa_mm':
            raise
        sys.exit(
            f'gpu_check.py: nepa_mm is not installed for {sys.executable}; run "source .venv/bin/activate" (after make '
            'install), or "pip install -e .[openmm]"'
        )
    sys.exit(check(args.out_dir, Path(__file__).resolve().parents[1]))


if __name__ == '__main__':
    main()
