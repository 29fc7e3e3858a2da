"""Prepare COCO-Stuff 164k (171 classes) for mmseg's ``COCOStuffDataset``.

Takes ``train2017.zip``, ``val2017.zip`` and ``stuffthingmaps_trainval2017.zip``, or folders that they unpack to, and
leaves them untouched. Checks that there are 118,287 + 5,000 images with label maps of the same size, and writes::

    DST/images/{train2017,val2017}/*.jpg    DST/annotations/{train2017,val2017}/*_labelTrainIds.png

Of the 182 ids of the label maps, 11 were dropped from the data set and never occur; the other 171 become 0 to 170 in
the same order, and 255 stays.

Usage: python tools/dataset_converters/coco_stuff164k.py train2017.zip val2017.zip stuffthingmaps_trainval2017.zip \
    data/coco_stuff164k
"""

import sys
from collections.abc import Sequence

from nepa_mm.datasets.preparation import (
    DEFAULTS,
    LabelTable,
    Options,
    Pair,
    PreparationError,
    collect_files,
    convert_pairs,
    match_files,
    new_folder,
    pair_files,
    raise_problems,
    run_tool,
)

# Images of the published splits.
COUNTS = {'train2017': 118287, 'val2017': 5000}
# Stored ids are those of COCO minus one. Dropped: street sign, hat, shoe, eye glasses, plate, mirror, window, desk,
# door, blender, hair brush.
DROPPED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
KEPT = [value for value in range(182) if value not in DROPPED]
TRAIN_IDS = LabelTable(
    {value: i for i, value in enumerate(KEPT)} | {255: 255},
    expected='0 to 181 without the 11 dropped ids, or 255 (the maps of stuffthingmaps_trainval2017)',
)


def convert(sources: Sequence[str], dst: str | None, options: Options = DEFAULTS) -> dict[str, int]:
    """Check and convert COCO-Stuff 164k.

    Args:
        sources: The three zips, or unpacked folders.
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
        # Images and maps lie in folders of the same name; the suffix tells them apart.
        images = match_files(files, r'(train2017|val2017)/(\d+)\.jpg')
        labels = match_files(files, r'(train2017|val2017)/(\d+)\.png')
        for found, what in ((images, 'images (train2017.zip, val2017.zip): train2017/*.jpg'),
                            (labels, 'label maps (stuffthingmaps_trainval2017.zip): train2017/*.png')):  # fmt: skip
            if not found:
                raise PreparationError(f'{", ".join(map(str, sources))}: no {what}')
        splits, problems = pair_files(images, labels, COUNTS, options.any_count)
        raise_problems(sources, problems)
        pairs = [
            Pair(images[s, n], labels[s, n], f'images/{s}/{n}.jpg', f'annotations/{s}/{n}_labelTrainIds.png')
            for s, names in splits.items()
            for n in names
        ]
        convert_pairs(sources, pairs, new, TRAIN_IDS, options, 'COCO-Stuff')
    return {split: len(names) for split, names in splits.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    description = 'Check COCO-Stuff 164k and write it with training ids in the form that the configs read.'
    sources = 'train2017.zip, val2017.zip and stuffthingmaps_trainval2017.zip, or the folders they unpack to'
    return run_tool('coco_stuff164k', description, convert, sources, argv)


if __name__ == '__main__':
    sys.exit(main())
