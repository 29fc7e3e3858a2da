"""Prepare Cityscapes (19 classes) for mmseg's ``CityscapesDataset``; cityscapesScripts is not needed.

Takes ``leftImg8bit_trainvaltest.zip`` and ``gtFine_trainvaltest.zip``, or the folders that they unpack to, and leaves
them untouched. Checks that there are 2,975 + 500 images with label maps of the same size, and writes::

    DST/leftImg8bit/{train,val[,test]}/<city>/*_leftImg8bit.png
    DST/gtFine/{train,val[,test]}/<city>/*_gtFine_labelTrainIds.png

Training ids come from ``*_gtFine_labelIds.png`` where the source has them, else from ``*_gtFine_polygons.json``, drawn
in their order as the data set's own tool draws them; what the benchmark does not score becomes 255.

Usage: python tools/dataset_converters/cityscapes.py leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip \
    data/cityscapes
"""

import json
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from nepa_mm.datasets.preparation import (
    DEFAULTS,
    LabelTable,
    Options,
    Pair,
    PreparationError,
    collect_files,
    convert_pairs,
    decode_label,
    match_files,
    new_folder,
    pair_files,
    raise_problems,
    run_tool,
)

# Images of the published splits.
COUNTS = {'train': 2975, 'val': 500, 'test': 1525}
OPTIONAL = ('test',)
# All names in the order of their ids, 0 to 33.
NAMES = (
    'unlabeled', 'ego vehicle', 'rectification border', 'out of roi', 'static', 'dynamic', 'ground', 'road', 'sidewalk',
    'parking', 'rail track', 'building', 'wall', 'fence', 'guard rail', 'bridge', 'tunnel', 'pole', 'polegroup',
    'traffic light', 'traffic sign', 'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus',
    'caravan', 'trailer', 'train', 'motorcycle', 'bicycle',
)  # fmt: skip
# The 19 that are scored, in the order of their training ids, which is that of CityscapesDataset's classes.
SCORED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TRAIN_IDS = LabelTable(
    {i: SCORED.index(i) if i in SCORED else 255 for i in range(len(NAMES))}, expected='a label id, 0 to 33'
)
# More is no frame of a camera, nor a point in or near one: 2,048 x 1,024 in the data set.
MOST_PIXELS, FARTHEST = 1 << 26, 1 << 20
# Drawn by nobody: its id is -1.
LICENSE_PLATE = 'license plate'


def draw_polygons(data: bytes) -> np.ndarray:
    """Draw the label ids of an annotation file.

    Args:
        data: A ``*_gtFine_polygons.json``: ``imgWidth``, ``imgHeight`` and ``objects``, later ones on top.

    Returns:
        Label ids, uint8 (H, W).

    Raises:
        ValueError: If it is not that, names an unknown class, or is of a size that is none of an image.
    """
    try:
        annotation = json.loads(data)
        width, height = annotation['imgWidth'], annotation['imgHeight']
        if not (width > 0 and height > 0 and width * height <= MOST_PIXELS):
            raise ValueError(f'imgWidth x imgHeight is {width} x {height}, limit {MOST_PIXELS:,} pixels')
        image = Image.new('L', (width, height), NAMES.index('unlabeled'))
        draw = ImageDraw.Draw(image)
        for item in annotation['objects']:
            # A group of things that could not be told apart counts as the thing.
            name = item['label'] if item['label'] in NAMES else item['label'].removesuffix('group')
            if name == LICENSE_PLATE or item.get('deleted'):
                continue
            if name not in NAMES:
                raise ValueError(f'unknown class {item["label"]!r}')
            if not all(abs(value) <= FARTHEST for point in item['polygon'] for value in point):
                raise ValueError(f'a polygon of {item["label"]!r} reaches farther than {FARTHEST:,} pixels')
            draw.polygon([tuple(point) for point in item['polygon']], fill=NAMES.index(name))
    except (KeyError, TypeError, AttributeError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f'is no Cityscapes annotation: {error!r}') from error
    return np.array(image)


def convert(sources: Sequence[str], dst: str | None, options: Options = DEFAULTS) -> dict[str, int]:
    """Check and convert Cityscapes.

    Args:
        sources: The two zips, or unpacked folders.
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
        frame = r'(train|val|test)/([^/]+/[^/]+)'
        images = match_files(files, rf'leftImg8bit/{frame}_leftImg8bit\.png')
        masks = match_files(files, rf'gtFine/{frame}_gtFine_labelIds\.png')
        polygons = match_files(files, rf'gtFine/{frame}_gtFine_polygons\.json')
        names = ', '.join(map(str, sources))
        if not images:
            raise PreparationError(f'{names}: no leftImg8bit/train/<city>/*_leftImg8bit.png (leftImg8bit_trainvaltest)')
        if not masks and not polygons:
            raise PreparationError(
                f'{names}: no gtFine/train/<city>/*_gtFine_labelIds.png or *_gtFine_polygons.json (gtFine_trainvaltest)'
            )
        splits, problems = pair_files(images, polygons | masks, COUNTS, options.any_count, OPTIONAL)
        raise_problems(sources, problems)
        for labels, decode in ((masks, decode_label), (polygons, draw_polygons)):
            pairs = [
                Pair(
                    images[s, n],
                    labels[s, n],
                    f'leftImg8bit/{s}/{n}_leftImg8bit.png',
                    f'gtFine/{s}/{n}_gtFine_labelTrainIds.png',
                )
                for s, frames in splits.items()
                for n in frames
                if (s, n) in labels and (labels is masks or (s, n) not in masks)
            ]
            convert_pairs(sources, pairs, new, TRAIN_IDS, options, 'Cityscapes', decode)
    return {split: len(frames) for split, frames in splits.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    description = 'Check Cityscapes and write it with training ids in the form that the configs read.'
    sources = 'leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, or the folders they unpack to'
    return run_tool('cityscapes', description, convert, sources, argv)


if __name__ == '__main__':
    sys.exit(main())
