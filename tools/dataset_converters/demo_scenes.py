"""Compose segmentation scenes from the photographs that ship inside scikit-image and scikit-learn.

Nothing is downloaded. Every photograph is a class; every region of a scene shows one photograph
under random crop, scale, flip and light, so the mask is exact by construction. Training and
validation scenes are cut from disjoint parts of each photograph. The result has ADE20K's folder
form and label convention (0 = other, classes from 1, ``reduce_zero_label=True``), plus crops of
single photographs in ImageNet's folder form for a linear head::

    OUT/images/{training,validation}/*.jpg
    OUT/annotations/{training,validation}/*.png
    OUT/classification/{train,val}/<class>/*.jpg
    OUT/meta.json                                   (classes, palette, credits, parameters)

Usage: python tools/dataset_converters/demo_scenes.py OUT [--train N --val N --size S --seed K]
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

# Raised when the same parameters would give other files than before: older folders are then remade.
FORMAT = 1
META = 'meta.json'
# Photograph pixels left unused between the training and the validation part.
MARGIN = 8
# Pixels a side of the smallest scene: below it a region has no room for texture.
MIN_SIZE = 32
MIN_REGIONS, MAX_REGIONS = 3, 6
# A scene whose smallest region covers less than this share of it is drawn again.
MIN_REGION_SHARE = 0.04
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Photo:
    """One photograph of an installed package, and which of it stands for the class.

    Args:
        name: Class name.
        package: Import name of the package that ships the file.
        file: Path inside the package.
        box: Left, top, right, bottom of what is used, as shares of width and height: leaves out
            plain surroundings that would look alike in several photographs.
        axis: 'x' splits the box into a left (training) and a right (validation) part, 'y' into an
            upper and a lower one; chosen so that both parts show the same kind of texture.
        zoom: Mean pixels of a scene per pixel of the photograph.
        color: Palette entry, RGB.
        credit: Who made it and its licence.
    """

    name: str
    package: str
    file: str
    box: tuple[float, float, float, float]
    axis: str
    zoom: float
    color: tuple[int, int, int]
    credit: str


_ALL = (0.0, 0.0, 1.0, 1.0)
PHOTOS = (
    Photo('brick', 'skimage', 'data/brick.png', _ALL, 'x', 0.75, (178, 34, 34), 'CC0Textures, CC0'),
    Photo(
        'grass',
        'skimage',
        'data/grass.png',
        _ALL,
        'x',
        0.9,
        (60, 160, 60),
        'linolafett (DeviantArt), CC0',
    ),
    Photo('gravel', 'skimage', 'data/gravel.png', _ALL, 'x', 0.9, (150, 150, 150), 'CC0Textures, CC0'),
    Photo(
        'coins',
        'skimage',
        'data/coins.png',
        _ALL,
        'x',
        1.0,
        (214, 175, 54),
        'Brooklyn Museum Collection, no known copyright restrictions',
    ),
    Photo('page', 'skimage', 'data/page.png', _ALL, 'x', 1.0, (235, 225, 200), 'scikit-image'),
    Photo(
        'tissue',
        'skimage',
        'data/ihc.png',
        _ALL,
        'x',
        0.8,
        (160, 110, 190),
        'Center for Microscopy And Molecular Imaging, no known copyright restrictions',
    ),
    Photo(
        'stars',
        'skimage',
        'data/hubble_deep_field.jpg',
        _ALL,
        'x',
        0.6,
        (20, 20, 90),
        'NASA and the European Space Agency, public domain',
    ),
    Photo(
        'retina',
        'skimage',
        'data/retina.jpg',
        (0.15, 0.14, 0.85, 0.86),
        'y',
        0.35,
        (240, 90, 60),
        'Mikael Häggström 2014, CC0',
    ),
    Photo(
        'coffee',
        'skimage',
        'data/coffee.png',
        (0.10, 0.0, 0.85, 1.0),
        'x',
        0.65,
        (120, 70, 20),
        'Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0',
    ),
    Photo(
        'cat',
        'skimage',
        'data/chelsea.png',
        (0.04, 0.0, 0.90, 1.0),
        'x',
        0.9,
        (255, 160, 90),
        'Stefan van der Walt, CC0',
    ),
    Photo(
        'motorcycle',
        'skimage',
        'data/motorcycle_left.png',
        (0.10, 0.15, 0.98, 0.98),
        'x',
        0.65,
        (0, 90, 200),
        'Middlebury stereo benchmark 2014 (Scharstein et al.)',
    ),
    Photo(
        'pagoda',
        'sklearn',
        'datasets/images/china.jpg',
        (0.08, 0.12, 0.60, 0.86),
        'y',
        0.9,
        (0, 170, 170),
        'danielbuechele (Flickr), CC BY 2.0',
    ),
    Photo(
        'flower',
        'sklearn',
        'datasets/images/flower.jpg',
        (0.20, 0.14, 0.75, 0.90),
        'x',
        0.8,
        (255, 105, 180),
        'vultilion (Flickr), CC BY 2.0',
    ),
)
CLASSES = tuple(photo.name for photo in PHOTOS)
PALETTE = tuple(photo.color for photo in PHOTOS)
_PIP_NAMES = {'skimage': 'scikit-image', 'sklearn': 'scikit-learn'}
# Folder names of a split in ADE20K's and in ImageNet's form.
_SPLITS = (('training', 'train'), ('validation', 'val'))


def photo_path(photo: Photo) -> Path:
    """Where the photograph lies, without importing its package (so nothing can be fetched).

    Raises:
        SystemExit: If the package or the file is missing.
    """
    pip_name = _PIP_NAMES[photo.package]
    spec = importlib.util.find_spec(photo.package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            f'demo_scenes: {pip_name} is not installed, and the scenes are composed from the '
            f'photographs it ships. Install it: python -m pip install {pip_name}'
        )
    path = Path(spec.submodule_search_locations[0]) / photo.file
    if not path.is_file():
        raise SystemExit(
            f'demo_scenes: {pip_name} does not hold {photo.file} (looked for {path}). '
            f'Install a release that ships it: python -m pip install --force-reinstall {pip_name}'
        )
    return path


def load_photo(photo: Photo) -> np.ndarray:
    """Read a photograph as uint8 (H, W, 3), BGR; grey ones get three equal channels.

    Raises:
        SystemExit: If it is missing or unreadable.
    """
    path = photo_path(photo)
    try:
        # PIL, because OpenCV's reader prints warnings on the colour profile of one of them.
        with Image.open(path) as image:
            return np.ascontiguousarray(np.asarray(image.convert('RGB'))[:, :, ::-1])
    except OSError as error:
        raise SystemExit(
            f'demo_scenes: {path} cannot be decoded ({error}). Reinstall the package it is from: '
            f'python -m pip install --force-reinstall {_PIP_NAMES[photo.package]}'
        ) from error


def part_box(photo: Photo, height: int, width: int, split: str) -> tuple[int, int, int, int]:
    """The pixels of a photograph that a split may show.

    Args:
        photo: The photograph.
        height: Its height in pixels.
        width: Its width in pixels.
        split: 'training' or 'validation'.

    Returns:
        Top, left, bottom, right; the boxes of the two splits are ``MARGIN`` pixels apart.
    """
    left, top, right, bottom = photo.box
    box = [round(top * height), round(left * width), round(bottom * height), round(right * width)]
    low = 0 if photo.axis == 'y' else 1
    middle = (box[low] + box[low + 2]) // 2
    if split == 'training':
        box[low + 2] = middle - MARGIN // 2
    else:
        box[low] = middle + MARGIN // 2
    return box[0], box[1], box[2], box[3]


def relight(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put an image under another light: brightness, gamma, tint and saturation.

    Black stays black, so nothing but the image's own pixels sets the result.

    Args:
        image: uint8 (H, W, 3).
        rng: Source of randomness.

    Returns:
        uint8 (H, W, 3).
    """
    values = (image.astype(np.float32) / 255) ** rng.uniform(0.75, 1.35)
    # Dim light takes colour away: down to a fifth, so that colour alone does not give the class.
    grey = values.mean(axis=2, keepdims=True)
    values = grey + rng.uniform(0.2, 1.1) * (values - grey)
    values *= rng.uniform(0.7, 1.25) * rng.uniform(0.88, 1.12, size=3).astype(np.float32)
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def random_view(part: np.ndarray, height: int, width: int, zoom: float, rng: np.random.Generator) -> np.ndarray:
    """A random crop of a photograph's part: scaled, flipped and under another light.

    Args:
        part: uint8 (h, w, 3), the part of the photograph.
        height: Rows of the view.
        width: Columns of the view.
        zoom: Mean pixels of the view per pixel of the photograph.
        rng: Source of randomness.

    Returns:
        uint8 (height, width, 3).
    """
    scale = zoom * 2 ** rng.uniform(-0.5, 0.5)
    # The crop has to fit: a small photograph is enlarged further, alike along both axes.
    scale = max(scale, height / part.shape[0], width / part.shape[1])
    rows = min(max(round(height / scale), 1), part.shape[0])
    cols = min(max(round(width / scale), 1), part.shape[1])
    top = int(rng.integers(part.shape[0] - rows + 1))
    left = int(rng.integers(part.shape[1] - cols + 1))
    crop = part[top : top + rows, left : left + cols]
    shrinks = rows > height or cols > width
    view = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        view = view[:, ::-1]
    return relight(view, rng)


def random_regions(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a square into regions with smooth random borders: Voronoi cells bent by smooth noise.

    Args:
        size: Pixels a side.
        count: Number of regions.
        rng: Source of randomness.

    Returns:
        uint8 (size, size), values 0..count-1, each covering ``MIN_REGION_SHARE`` or more.

    Raises:
        RuntimeError: If no admissible layout came up, which 3 to 6 regions never caused.
    """
    rows, cols = np.mgrid[0:size, 0:size].astype(np.float32) / size
    for _ in range(1000):
        centres = rng.uniform(0.05, 0.95, size=(count, 2))
        fields = np.empty((count, size, size), np.float32)
        for k, (row, col) in enumerate(centres):
            noise = rng.standard_normal((size, size)).astype(np.float32)
            noise = cv2.GaussianBlur(noise, (0, 0), size / 12)
            fields[k] = 0.09 * noise / noise.std() - np.hypot(rows - row, cols - col)
        regions = fields.argmax(axis=0).astype(np.uint8)
        areas = np.bincount(regions.ravel(), minlength=count)
        if areas.min() >= MIN_REGION_SHARE * size * size:
            return regions
    raise RuntimeError(f'no layout of {count} regions in {size} x {size} pixels after 1000 draws')


def compose_scene(parts: list[np.ndarray], size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene.

    Args:
        parts: Per class, the part of its photograph that this split may show, uint8 (h, w, 3).
        size: Pixels a side.
        rng: Source of randomness.

    Returns:
        Image, uint8 (size, size, 3), and mask, uint8 (size, size) with 1 + class.
    """
    count = int(rng.integers(MIN_REGIONS, MAX_REGIONS + 1))
    classes = rng.choice(len(parts), size=count, replace=False)
    regions = random_regions(size, count, rng)
    image = np.zeros((size, size, 3), np.uint8)
    for k, index in enumerate(classes):
        inside = regions == k
        (top, bottom), (left, right) = (np.flatnonzero(inside.any(axis=axis))[[0, -1]] for axis in (1, 0))
        window = (slice(top, bottom + 1), slice(left, right + 1))
        view = random_view(parts[index], bottom + 1 - top, right + 1 - left, PHOTOS[index].zoom, rng)
        image[window][inside[window]] = view[inside[window]]
    return image, (classes + 1).astype(np.uint8)[regions]


def _files(
    train: int, val: int, size: int, seed: int, train_crops: int, val_crops: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every file of a data set as (path below OUT, image).

    What a file shows depends on (seed, split, index) only: a longer set begins with the shorter.
    """
    photos = [load_photo(photo) for photo in PHOTOS]
    for number, ((ade, imagenet), scenes, crops) in enumerate(
        zip(_SPLITS, (train, val), (train_crops, val_crops), strict=True)
    ):
        parts = []
        for photo, pixels in zip(PHOTOS, photos, strict=True):
            top, left, bottom, right = part_box(photo, *pixels.shape[:2], ade)
            parts.append(pixels[top:bottom, left:right])
        for index in range(scenes):
            rng = np.random.default_rng([seed, number, 0, index])
            image, mask = compose_scene(parts, size, rng)
            yield f'images/{ade}/{index:05d}.jpg', image
            yield f'annotations/{ade}/{index:05d}.png', mask
        for label, (photo, part) in enumerate(zip(PHOTOS, parts, strict=True)):
            for index in range(crops):
                rng = np.random.default_rng([seed, number, 1 + label, index])
                view = random_view(part, size, size, photo.zoom, rng)
                yield f'classification/{imagenet}/{photo.name}/{index:05d}.jpg', view


def read_meta(out: str | os.PathLike) -> dict[str, Any] | None:
    """The metadata of a folder that this tool wrote, None if it wrote none there."""
    try:
        meta = json.loads((Path(out) / META).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta, dict) and meta.get('tool') == 'demo_scenes' else None


def _count_files(root: Path) -> dict[str, int]:
    """Number of non-empty image files in every folder below root."""
    counts = {}
    for folder, _, names in os.walk(root):
        images = [name for name in names if name.endswith(('.jpg', '.png'))]
        filled = sum(os.path.getsize(os.path.join(folder, name)) > 0 for name in images)
        if filled:
            counts[Path(folder).relative_to(root).as_posix()] = filled
    return counts


def make_scenes(
    out: str | os.PathLike,
    train: int = 600,
    val: int = 100,
    size: int = 128,
    seed: int = 0,
    train_crops: int = 60,
    val_crops: int = 30,
) -> bool:
    """Write the data set, unless it is already there, complete and made with the same parameters.

    The folder appears in one step, after everything in it is written.

    Args:
        out: Folder to write. An older data set of this tool in it is replaced.
        train: Training scenes.
        val: Validation scenes.
        size: Pixels a side of scenes and crops.
        seed: Seed of all randomness.
        train_crops: Training crops per class.
        val_crops: Validation crops per class.

    Returns:
        True if it was written, False if the folder already held it.

    Raises:
        ValueError: If a parameter is out of range.
        FileExistsError: If ``out`` holds something that this tool did not write.
        SystemExit: If scikit-image or scikit-learn is missing.
    """
    numbers = dict(train=train, val=val, train_crops=train_crops, val_crops=val_crops)
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f'{name}={value}: expected 1 or more')
    if size < MIN_SIZE:
        raise ValueError(f'size={size}: expected {MIN_SIZE} or more pixels a side')
    if seed < 0:
        raise ValueError(f'seed={seed}: expected 0 or more')

    out = Path(os.path.abspath(out))
    sources = {photo.name: hashlib.sha256(photo_path(photo).read_bytes()).hexdigest() for photo in PHOTOS}
    parameters = dict(numbers, format=FORMAT, size=size, seed=seed, sources=sources)
    old = read_meta(out)
    if old and old.get('parameters') == parameters and old.get('files') == _count_files(out):
        return False
    if old is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f'{out} exists and was not written by demo_scenes, so it is left alone; give an empty or a new folder'
        )

    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f'.{out.name}-', dir=out.parent))
    try:
        new = scratch / 'new'
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        for name, image in _files(train, val, size, seed, train_crops, val_crops):
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), image, quality if path.suffix == '.jpg' else []):
                raise OSError(f'{path} could not be written')
        meta = dict(
            tool='demo_scenes',
            classes=CLASSES,
            palette=PALETTE,
            reduce_zero_label=True,
            credits={photo.name: photo.credit for photo in PHOTOS},
            files=_count_files(new),
            parameters=parameters,
        )
        (new / META).write_text(json.dumps(meta, indent=2) + '\n', encoding='utf-8')
        if out.exists():
            out.rename(scratch / 'old')
        new.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description='Compose segmentation scenes (ADE20K folder form) from the photographs that '
        'ship inside scikit-image and scikit-learn. Nothing is downloaded.'
    )
    parser.add_argument('out', help='folder to write; reused when it already holds the same')
    parser.add_argument('--train', type=int, default=600, help='training scenes')
    parser.add_argument('--val', type=int, default=100, help='validation scenes')
    parser.add_argument('--size', type=int, default=128, help='pixels a side')
    parser.add_argument('--seed', type=int, default=0, help='seed of all randomness')
    parser.add_argument('--train-crops', type=int, default=60, help='training crops per class')
    parser.add_argument('--val-crops', type=int, default=30, help='validation crops per class')
    args = parser.parse_args(argv)
    try:
        written = make_scenes(**vars(args))
    except (ValueError, OSError) as error:
        print(f'demo_scenes: {error}', file=sys.stderr)
        return 1
    print(
        f'{args.out}: {args.train} training and {args.val} validation scenes, '
        f'{len(CLASSES)} classes ({"written" if written else "already there"})'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
