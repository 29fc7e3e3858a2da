"""Prepare ADE20K (SceneParsing, 150 classes) for mmseg's ``ADE20KDataset``.

Takes ``ADEChallengeData2016.zip``, or the folder that it unpacks to, and leaves it untouched. Checks that there are
20,210 + 2,000 images with as many label maps of the same size, values 0 (no label) to 150, and writes::

    DST/images/{training,validation}/*.jpg    DST/annotations/{training,validation}/*.png

which with DST = data/ade/ADEChallengeData2016 is what the configs read. The labels stay as published:
``reduce_zero_label=True`` makes 0 the ignored 255 and 1 to 150 the classes 0 to 149.

Usage: python tools/dataset_converters/ade20k.py ADEChallengeData2016.zip data/ade/ADEChallengeData2016
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
COUNTS = {'training': 20210, 'validation': 2000}
NUM_CLASSES = 150
LABELS = LabelTable.unchanged(range(NUM_CLASSES + 1), expected=f'0 to {NUM_CLASSES} (0 = no label)')


def convert(sources: Sequence[str], dst: str | None, options: Options = DEFAULTS) -> dict[str, int]:
    """Check and convert ADE20K.

    Args:
        sources: The zip, or the unpacked folder.
        dst: New or empty folder; it appears in one step, when everything is written. None only checks.
        options: See :class:`Options`.

    Returns:
        Number of images per split.

    Raises:
        PreparationError: If the source is not as expected; names every kind of problem.
        FileExistsError: If ``dst`` holds something.
    """
    with new_folder(dst) as (new, scratch):
        files = collect_files(sources, scratch)
        images = match_files(files, r'images/(training|validation)/([^/]+)\.jpg')
        labels = match_files(files, r'annotations/(training|validation)/([^/]+)\.png')
        if not images:
            full = any(name.endswith('_seg.png') for name, _ in files)
            raise PreparationError(
                f'{", ".join(map(str, sources))}: holds no images/training/*.jpg; expected ADEChallengeData2016'
                + (
                    ' (this is the full ADE20K; its 150-class SceneParsing form is a download of its own)'
                    if full
                    else ''
                )
            )
        splits, problems = pair_files(images, labels, COUNTS, options.any_count)
        raise_problems(sources, problems)
        pairs = [
            Pair(images[s, n], labels[s, n], f'images/{s}/{n}.jpg', f'annotations/{s}/{n}.png')
            for s, names in splits.items()
            for n in names
        ]
        convert_pairs(sources, pairs, new, LABELS, options, 'ADE20K')
    return {split: len(names) for split, names in splits.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    description = 'Check ADE20K (SceneParsing) and write it in the form that the configs read.'
    return run_tool('ade20k', description, convert, 'ADEChallengeData2016.zip, or the folder it unpacks to', argv)


if __name__ == '__main__':
    sys.exit(main())
