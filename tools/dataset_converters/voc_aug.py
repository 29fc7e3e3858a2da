"""Prepare PASCAL VOC 2012 with the extra masks of SBD ("aug", 21 classes) for mmseg's ``PascalVOCDataset``.

Takes ``VOCtrainval_11-May-2012.tar`` and either SBD's ``benchmark.tgz`` (MATLAB masks) or a ``SegmentationClassAug``
zip or folder (PNG masks), packed or unpacked, and leaves them untouched. Checks 1,464 training and 1,449 validation
images and 9,118 more of SBD, 10,582 for training in all, that every mask has its image's size and values 0 to 20 or
255, and writes::

    DST/JPEGImages/*.jpg
    DST/SegmentationClass/*.png       (train, val)
    DST/SegmentationClassAug/*.png    (aug)
    DST/ImageSets/Segmentation/{train,val,trainval,aug,trainaug}.txt

`aug` lists what SBD adds to `train`, without an image of `val`; `trainaug` is both. All lists are sorted.

Usage: python tools/dataset_converters/voc_aug.py VOCtrainval_11-May-2012.tar benchmark.tgz data/VOCdevkit/VOC2012
"""

import sys
from collections.abc import Sequence

from nepa_mm.datasets.preparation import (
    DEFAULTS,
    LabelTable,
    Options,
    Pair,
    PreparationError,
    SourceFile,
    check_count,
    collect_files,
    convert_pairs,
    copy_images,
    decode_label,
    decode_sbd,
    match_files,
    name_some,
    new_folder,
    raise_problems,
    run_tool,
)

# Images of the published lists; aug as it stands beside VOC's own train, 10,582 in all.
COUNTS = {'train': 1464, 'val': 1449, 'aug': 9118}
LABELS = LabelTable.unchanged(range(21), 255, expected='0 to 20, or 255 (border)')
LISTS = 'ImageSets/Segmentation'


def read_list(file: SourceFile) -> list[str]:
    """The image names in a list of VOC, sorted; each stands on a line of its own."""
    # What is no text names no image, and is told as such.
    return sorted({line.strip() for line in file.read().decode('utf-8', 'replace').splitlines()} - {''})


def convert(sources: Sequence[str], dst: str | None, options: Options = DEFAULTS) -> dict[str, int]:
    """Check and convert PASCAL VOC 2012 + SBD.

    Args:
        sources: The tar of VOC and the masks of SBD, or unpacked folders.
        dst: New or empty folder; it appears in one step, when everything is written. None only checks.
        options: See :class:`Options`.

    Returns:
        Number of images per list.

    Raises:
        PreparationError: If the sources are not as expected; names every kind of problem.
        FileExistsError: If ``dst`` holds something.
    """
    with new_folder(dst) as (new, scratch):
        files = collect_files(sources, scratch)
        images = match_files(files, r'JPEGImages/([^/]+)\.jpg')
        masks = match_files(files, r'SegmentationClass/([^/]+)\.png')
        pngs = match_files(files, r'SegmentationClassAug/([^/]+)\.png')
        mats = match_files(files, r'cls/([^/]+)\.mat')
        lists = {s: list(match_files(files, rf'{LISTS}/{s}\.txt').values()) for s in ('train', 'val')}
        names = ', '.join(map(str, sources))
        if not images or not masks or not all(lists.values()):
            raise PreparationError(
                f'{names}: no JPEGImages/*.jpg, SegmentationClass/*.png and {LISTS}/{{train,val}}.txt of VOC 2012 '
                '(VOCtrainval_11-May-2012.tar)'
            )
        extra = {**mats, **pngs}
        if not extra:
            raise PreparationError(
                f'{names}: no masks of SBD: neither dataset/cls/*.mat (benchmark.tgz) nor SegmentationClassAug/*.png'
            )
        splits = {split: read_list(found[0]) for split, found in lists.items()}
        splits['aug'] = sorted({name for (name,) in extra} - set(splits['train']) - set(splits['val']))
        problems = []
        for split, found in splits.items():
            labels = extra if split == 'aug' else masks
            problems += check_count(split, len(found), COUNTS[split], options.any_count)
            for what, there in (('image', images), ('mask', labels)):
                if missing := [name for name in found if (name,) not in there]:
                    problems.append(f'{split}: no {what} for {name_some(missing)}')
        if both := set(splits['train']) & set(splits['val']):
            problems.append(f'train and val share {name_some(both)}')
        raise_problems(sources, problems)

        copy_images(
            sources, [(file, f'JPEGImages/{name}.jpg') for (name,), file in images.items()], new, options, 'VOC images'
        )
        own = [*splits['train'], *splits['val']]
        for folder, wanted, labels, decode in (
            ('SegmentationClass', own, masks, decode_label),
            ('SegmentationClassAug', [n for n in splits['aug'] if (n,) in pngs], pngs, decode_label),
            ('SegmentationClassAug', [n for n in splits['aug'] if (n,) not in pngs], mats, decode_sbd),
        ):
            # The images are written above.
            pairs = [Pair(images[n,], labels[n,], None, f'{folder}/{n}.png') for n in wanted]
            convert_pairs(sources, pairs, new, LABELS, options, folder, decode)
        if new is not None:
            (new / LISTS).mkdir(parents=True)
            joined = {'trainval': sorted(own), 'trainaug': sorted(splits['train'] + splits['aug'])}
            for split, found in {**splits, **joined}.items():
                (new / LISTS / f'{split}.txt').write_text(''.join(f'{name}\n' for name in found))
    return {split: len(found) for split, found in splits.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    description = 'Check PASCAL VOC 2012 and the masks of SBD, and write both in the form that the configs read.'
    sources = 'VOCtrainval_11-May-2012.tar, and benchmark.tgz or SegmentationClassAug, packed or unpacked'
    return run_tool('voc_aug', description, convert, sources, argv)


if __name__ == '__main__':
    sys.exit(main())
