"""Measure what a step, an image, an iteration, a token or a probe costs, beside what bounds it in the same process.

Usage: python tools/analysis/benchmark.py step|data|loop|memory|tokens|probing [arguments, see --help of each]

Prints a table of medians with quartiles and writes it as JSON and markdown.
"""

import argparse
import importlib
import sys


def main() -> None:
    """Measure."""
    # Two steps: only the module of the sub-command that is asked for is imported.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    try:
        from nepa_mm.benchmark import SUBCOMMANDS
    except ModuleNotFoundError as error:
        if error.name != 'nepa_mm':
            raise
        sys.exit(
            f'benchmark.py: nepa_mm is not installed for {sys.executable}; run "source .venv/bin/activate" (after make '
            'install), or "pip install -e .[openmm]"'
        )
    parser.add_argument('subcommand', choices=SUBCOMMANDS)
    if not sys.argv[1:] or sys.argv[1].startswith('-') or sys.argv[1] not in SUBCOMMANDS:
        parser.parse_args()  # help, or an error
    name = sys.argv[1]
    module = importlib.import_module(f'nepa_mm.benchmark.{name}')
    parser = argparse.ArgumentParser(
        prog=f'benchmark.py {name}', description=module.HELP, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    module.add_arguments(parser)
    parser.add_argument('--out-dir', default='work_dirs/benchmarks', help='folder of the report')
    args = parser.parse_args(sys.argv[2:])
    from nepa_mm.apis.cli import UsageError, check_device

    try:
        check_device(getattr(args, 'device', None))
    except UsageError as error:
        sys.exit(f'benchmark.py: {error}')
    report = module.run(args)
    print(report.markdown())
    print('written: ' + ', '.join(str(file) for file in report.write(args.out_dir)))


if __name__ == '__main__':
    main()
