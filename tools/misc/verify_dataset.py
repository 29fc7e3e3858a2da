"""Look through the data of a config, or of two folders, before training on it.

Finds images and label maps that cannot be read, are missing, do not fit each other or hold values that are no class;
and what trains in silence: labels from 1 where 0 is expected and the other way round, coloured masks, an ignored value
that is also a class, classes that never occur. Says what it concludes and which line of the config to change, and
writes the list of bad files. Exit status 1 if something is wrong, with --strict also if it is only worth a look.

Usage: python tools/misc/verify_dataset.py CONFIG
       python tools/misc/verify_dataset.py --images DIR --labels DIR --num-classes N
"""

import argparse
import os
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Parse the command line; nothing heavy is imported before, so ``--help`` is quick."""
    parser = argparse.ArgumentParser(description='Look through a data set before training on it')
    parser.add_argument('config', nargs='?', help='config file')
    parser.add_argument('--images', metavar='DIR', help='folder of images, instead of a config')
    parser.add_argument('--labels', metavar='DIR', help='folder of their label maps')
    parser.add_argument('--num-classes', type=int, metavar='N', help='classes of the label maps')
    parser.add_argument('--reduce-zero-label', action='store_true', help='0 is "no label", classes start at 1')
    parser.add_argument('--ignore-index', type=int, default=255, help='ignored value (default: 255)')
    parser.add_argument('--seg-map-suffix', default='.png', help='how label maps end (default: .png)')
    parser.add_argument('--img-suffix', help='how images end (default: the one kind that is there)')
    parser.add_argument(
        '--splits', nargs='+', choices=['train', 'val', 'test'], default=['train', 'val', 'test'], help='of the config'
    )
    parser.add_argument('--out', metavar='FILE', help='list of bad files (default: work_dirs/verify_dataset/NAME.txt)')
    cores = min(8, os.cpu_count() or 1)
    parser.add_argument('--nproc', type=int, default=cores, metavar='N', help=f'processes (default: {cores})')
    parser.add_argument('--strict', action='store_true', help='exit status 1 also for what is only worth a look')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE', help='override the config')
    args = parser.parse_args()
    if (args.config is None) == (args.images is None):
        parser.error('name a config, or --images and, with label maps, --labels and --num-classes')
    if args.labels is not None and (args.num_classes or 0) < 1:
        parser.error('--labels needs --num-classes, 1 or more')
    return args


def main() -> int:
    """Verify and report; returns the exit status."""
    args = parse_args()
    from nepa_mm.apis import cli, data_check
    from nepa_mm.datasets import verification

    cli.print_any_name()
    try:
        if args.config is not None:
            cfg = cli.load_config(args.config, Path(__file__).resolve().parents[2] / 'configs')
            cfg.merge_from_dict(cli.parse_options(args.cfg_options))
        else:
            for folder in filter(None, (args.images, args.labels)):
                if not os.path.isdir(folder):
                    raise cli.UsageError(f'{folder!r} is not a folder')
            cfg = verification.folder_config(
                args.images,
                args.labels,
                args.num_classes,
                args.reduce_zero_label,
                args.ignore_index,
                args.seg_map_suffix,
                args.img_suffix,
            )
        data_check.check_data(cfg, [f'{split}_dataloader' for split in args.splits])
    except cli.UsageError as error:
        print(f'verify_dataset: {error}', file=sys.stderr)
        return 1
    loaders = verification.verify(cfg, [f'{split}_dataloader' for split in args.splits], args.nproc)
    if not loaders:
        print(f'verify_dataset: {args.config} has no data set in {", ".join(args.splits)}', file=sys.stderr)
        return 1
    name = Path(args.config or args.images).resolve().stem
    out = Path(args.out or f'work_dirs/verify_dataset/{name}.txt')
    return verification.print_report(loaders, verification.conclude(loaders, cfg), out, args.strict)


if __name__ == '__main__':
    sys.exit(main())
