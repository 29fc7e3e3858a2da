"""Prepare ImageNet-1k (ILSVRC 2012) in class folders, for mmpretrain's ``CustomDataset`` and ``ImageNet``.

Takes, in any mixture and leaving it untouched: ``ILSVRC2012_img_train.tar`` (a tar of 1,000 tars, read in place),
``ILSVRC2012_img_val.tar`` with ``ILSVRC2012_devkit_t12.tar.gz``, the Kaggle zip (``LOC_val_solution.csv`` holds the
classes of val), or folders of already unpacked images. An image is known by its name: ``n01440764_10026.JPEG`` is
training, ``ILSVRC2012_val_00000001.JPEG`` is validation. Checks 1,281,167 + 50,000 images, the 1,000 classes (50
validation images each), that every file is there as a whole and begins as an image, and writes::

    DST/train/<wnid>/*.JPEG    DST/val/<wnid>/*.JPEG

Usage: python tools/dataset_converters/imagenet.py ILSVRC2012_img_train.tar ILSVRC2012_img_val.tar \
    ILSVRC2012_devkit_t12.tar.gz data/imagenet
"""

import csv
import io
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from scipy.io import loadmat
from timm.data import ImageNetInfo

from nepa_mm.datasets.preparation import (
    DEFAULTS,
    Options,
    PreparationError,
    SourceFile,
    check_count,
    collect_files,
    copy_images,
    match_files,
    name_some,
    new_folder,
    raise_problems,
    run_tool,
)

# Images of the published splits.
COUNTS = {'train': 1281167, 'val': 50000}
VAL_PER_CLASS = 50
SUFFIX = r'\.(?:JPEG|jpeg|JPG|jpg)'
TRAIN = rf'((n\d{{8}})_\d+{SUFFIX})'
VAL = rf'(?:([^/]+)/)?(ILSVRC2012_val_(\d{{8}}){SUFFIX})'

Files = Sequence[tuple[str, SourceFile]]


def read_val_classes(files: Files) -> dict[int, str]:
    """Number of a validation image to its class, from the devkit or Kaggle's solution file.

    Args:
        files: From :func:`collect_files`.

    Returns:
        WordNet ids such as n01440764; empty if the sources hold neither.

    Raises:
        PreparationError: If what they hold cannot be read.
    """
    solutions = match_files(files, r'LOC_val_solution\.csv')
    truths = match_files(files, r'ILSVRC2012_validation_ground_truth\.txt')
    metas = match_files(files, r'meta\.mat')
    try:
        if solutions:
            rows = csv.DictReader(io.StringIO(solutions[()].read().decode()))
            return {int(row['ImageId'].rsplit('_')[-1]): row['PredictionString'].split()[0] for row in rows}
        if truths and metas:
            synsets = loadmat(io.BytesIO(metas[()].read()), squeeze_me=True)['synsets']
            wnids = {int(synset['ILSVRC2012_ID']): str(synset['WNID']) for synset in synsets}
            return {number: wnids[int(line)] for number, line in enumerate(truths[()].read().split(), start=1)}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise PreparationError(f'the classes of the validation images cannot be read: {error!r}') from error
    return {}


def place_images(files: Files) -> tuple[dict[str, dict[str, SourceFile]], list[str]]:
    """Find the class of every image.

    Args:
        files: From :func:`collect_files`.

    Returns:
        Per split, '<wnid>/<name>' to file; and what is wrong, one line each.
    """
    train = {f'{wnid}/{name}': file for (name, wnid), file in match_files(files, TRAIN).items()}
    val: dict[str, SourceFile] = {}
    unknown, strange, twice = [], set(), []
    known = None
    for (folder, name, number), file in match_files(files, VAL).items():
        wnid = folder
        if wnid not in _wnids():
            known = read_val_classes(files) if known is None else known
            wnid = known.get(int(number))
        if wnid is None:
            unknown.append(name)
        elif wnid not in _wnids():
            # Text from inside the archive, which must not become a path: it may hold '..'.
            strange.add(wnid)
        elif f'{wnid}/{name}' in val:
            twice.append(name)
        else:
            val[f'{wnid}/{name}'] = file
    problems = []
    if unknown:
        problems.append(
            f'val: no class for {name_some(unknown)}; give ILSVRC2012_devkit_t12.tar.gz or LOC_val_solution.csv as well'
        )
    if strange:
        problems.append(f'val: {name_some(list(map(repr, strange)))}: not among the 1,000 classes of ImageNet-1k')
    if twice:
        problems.append(f'val: given twice: {name_some(twice)}')
    return {'train': train, 'val': val}, problems


def check_classes(splits: Mapping[str, Mapping[str, SourceFile]], any_count: bool) -> list[str]:
    """Compare the classes of the images with the published 1,000; returns what is wrong."""
    problems = []
    wnids = _wnids()
    counts = {split: Counter(name.split('/')[0] for name in images) for split, images in splits.items()}
    for split, found in counts.items():
        if strange := set(found) - wnids:
            problems.append(f'{split}: {name_some(strange)}: not among the 1,000 classes of ImageNet-1k')
        if (missing := wnids - set(found)) and not any_count:
            problems.append(f'{split}: no image of {len(missing):,} classes: {name_some(missing)}')
    uneven = {wnid for wnid, count in counts['val'].items() if count != VAL_PER_CLASS}
    if uneven and not any_count:
        problems.append(
            f'val: not {VAL_PER_CLASS} images of {name_some(uneven)}; are the classes of the right release?'
        )
    return problems


def convert(sources: Sequence[str], dst: str | None, options: Options = DEFAULTS) -> dict[str, int]:
    """Check and convert ImageNet-1k.

    Args:
        sources: Tars, zip or folders.
        dst: New or empty folder; it appears in one step, when everything is written. None only checks.
        options: See :class:`Options`.

    Returns:
        Number of images per split.

    Raises:
        PreparationError: If the sources are not as expected; names every kind of problem.
        FileExistsError: If ``dst`` holds something.
    """
    with new_folder(dst) as (new, scratch):
        files = collect_files(sources, scratch)
        splits, problems = place_images(files)
        if not any(splits.values()):
            raise PreparationError(
                f'{", ".join(map(str, sources))}: no image is named as in ILSVRC 2012 (n01440764_10026.JPEG, '
                'ILSVRC2012_val_00000001.JPEG)'
            )
        for split, images in splits.items():
            # The training images alone are enough to pretrain.
            if images or not options.any_count:
                problems += check_count(split, len(images), COUNTS[split], options.any_count)
        problems += check_classes(splits, options.any_count)
        raise_problems(sources, problems)
        items = [(file, f'{split}/{name}') for split, images in splits.items() for name, file in images.items()]
        copy_images(sources, items, new, options, 'ImageNet')
    return {split: len(images) for split, images in splits.items()}


@lru_cache
def _wnids() -> frozenset[str]:
    """The 1,000 WordNet ids of ImageNet-1k."""
    return frozenset(ImageNetInfo().label_names())


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    description = 'Check ImageNet-1k and write it in class folders, which the configs read.'
    sources = 'ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and the devkit; the Kaggle zip; or unpacked folders'
    return run_tool('imagenet', description, convert, sources, argv)


if __name__ == '__main__':
    sys.exit(main())
