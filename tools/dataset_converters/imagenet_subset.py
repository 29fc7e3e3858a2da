"""Draw few-shot lists of ImageNet, or of any folder of class folders: the same share of the labels in every class.

Writes mmpretrain's annotation form, ``<class folder>/<file> <class index>``, classes numbered in the order of their
names as ``CustomDataset`` does::

    OUT/train_1percent.txt    OUT/train_10percent.txt

Of N images the list of P percent has round(N * P / 100), as many from every class, one more from some where that does
not come out even (ImageNet: 12,812 and 128,117). Which ones depends on seed, class and file names only, not on the
order in which the disk lists them, nor on the machine; a smaller list is part of every larger one of the same seed.

Usage: python tools/dataset_converters/imagenet_subset.py data/imagenet/train data/imagenet/meta
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from nepa_mm.datasets.preparation import PreparationError, name_some

# Those that mmpretrain's CustomDataset takes.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')


def find_images(root: Path) -> dict[str, list[str]]:
    """List the images of each class.

    Args:
        root: Folder of class folders.

    Returns:
        Class folder to paths below it, in the order of the classes' names.

    Raises:
        PreparationError: If there is no such folder, or no class folder in it, or an empty one.
    """
    if not root.is_dir():
        raise PreparationError(f'{root} is not a folder; give the folder that holds one folder per class')
    classes: dict[str, list[str]] = {}
    for name in sorted(entry.name for entry in root.iterdir() if entry.is_dir()):
        classes[name] = [
            os.path.relpath(os.path.join(parent, file), root / name).replace(os.sep, '/')
            for parent, _, files in os.walk(root / name, followlinks=True)
            for file in files
            if file.lower().endswith(SUFFIXES)
        ]
    if not classes:
        raise PreparationError(f'{root} holds no folders; give the folder that holds one folder per class')
    if empty := [name for name, files in classes.items() if not files]:
        raise PreparationError(f'{root}: no images in {name_some(empty)}')
    return classes


def _rank(seed: int, *names: str) -> bytes:
    """A place in an order that looks random and is the same everywhere."""
    return hashlib.sha256('\0'.join([str(seed), *names]).encode('utf-8', 'surrogateescape')).digest()


def share_out(sizes: Mapping[str, int], total: int, seed: int) -> dict[str, int]:
    """Share images out over classes as evenly as their sizes allow.

    Args:
        sizes: Images that each class has.
        total: Images to share out, at most all of them.
        seed: Decides which classes get one more where it does not come out even.

    Returns:
        Images per class; their sum is ``total``.
    """
    shares = dict.fromkeys(sizes, 0)
    order = sorted(sizes, key=lambda name: _rank(seed, name))
    while left := total - sum(shares.values()):
        open_classes = [name for name in order if shares[name] < sizes[name]]
        # What all that are not exhausted can take, or else one more for the first of them.
        step = min(left // len(open_classes), min(sizes[name] - shares[name] for name in open_classes))
        for name in open_classes if step else open_classes[:left]:
            shares[name] += step or 1
    return shares


def draw(classes: Mapping[str, Sequence[str]], percent: float, seed: int) -> list[str]:
    """Draw a list.

    Args:
        classes: Class folder to paths below it.
        percent: Share of all images.
        seed: Of the draw.

    Returns:
        Lines of the annotation file, sorted.

    Raises:
        PreparationError: If that is less than one image per class.
    """
    total = round(sum(map(len, classes.values())) * percent / 100)
    if total < len(classes):
        raise PreparationError(
            f'{percent:g} percent are {total} images, fewer than the {len(classes)} classes; take a larger share'
        )
    shares = share_out({name: len(files) for name, files in classes.items()}, total, seed)
    lines = []
    for index, name in enumerate(sorted(classes)):
        chosen = sorted(classes[name], key=lambda file: _rank(seed, name, file))[: shares[name]]
        lines += [f'{name}/{file} {index}' for file in sorted(chosen)]
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description='Draw few-shot lists, the same share of every class.')
    parser.add_argument('root', type=Path, help='folder of class folders, such as data/imagenet/train')
    parser.add_argument('out', type=Path, help='folder to write into, such as data/imagenet/meta')
    parser.add_argument('--percent', type=float, nargs='+', default=[1, 10], help='shares (default: 1 10)')
    parser.add_argument('--seed', type=int, default=0, help='of the draw (default: 0)')
    args = parser.parse_args(argv)
    for percent in args.percent:
        if not 0 < percent <= 100:
            parser.error(f'--percent {percent:g}: expected more than 0, at most 100')
    try:
        classes = find_images(args.root)
        lists = {f'train_{percent:g}percent.txt': draw(classes, percent, args.seed) for percent in args.percent}
        args.out.mkdir(parents=True, exist_ok=True)
        for name, lines in lists.items():
            scratch = args.out / f'.{name}'
            scratch.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
            scratch.replace(args.out / name)
            print(f'{args.out / name}: {len(lines):,} images of {len(classes):,} classes, seed {args.seed}')
    except (PreparationError, OSError) as error:
        print(f'imagenet_subset: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
