"""Images with their label maps: pairing, checking and writing them."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath

import numpy as np

from .labels import decode_label, encode_label, image_size
from .sources import PreparationError, SourceFile
from .tool import Options, name_some, raise_problems
from .writing import check_space, run_parallel

# JPEG, PNG: how the files that ImageNet, COCO and VOC publish begin.
_SIGNATURES = (b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n')


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its label map, and where they go.

    Args:
        image: The image.
        label: Its label map.
        image_target: Path in the new folder; None leaves the image out, it only lends its size.
        label_target: Path in the new folder.
    """

    image: SourceFile
    label: SourceFile
    image_target: str | None
    label_target: str


def pair_files(
    images: Mapping[tuple[str, ...], SourceFile],
    labels: Mapping[tuple[str, ...], SourceFile],
    counts: Mapping[str, int],
    any_count: bool = False,
    optional: Collection[str] = (),
) -> tuple[dict[str, list[str]], list[str]]:
    """Pair images with labels of the same split and name.

    Args:
        images: By (split, name).
        labels: By (split, name).
        counts: Published number of images per split.
        any_count: Whether to accept other numbers, but none.
        optional: Splits that may be missing as a whole.

    Returns:
        Per split that is there, the sorted names of its pairs; and what is wrong, one line each.
    """
    splits, problems = {}, []
    for split, expected in counts.items():
        with_image, with_label = ({name for s, name in found if s == split} for found in (images, labels))
        if split in optional and not with_image and not with_label:
            continue
        if with_image - with_label:
            problems.append(f'{split}: no label for {name_some(with_image - with_label)}')
        if with_label - with_image:
            problems.append(f'{split}: no image for {name_some(with_label - with_image)}')
        problems += check_count(split, len(with_image), expected, any_count)
        splits[split] = sorted(with_image & with_label)
    return splits, problems


def check_count(split: str, found: int, expected: int, any_count: bool, what: str = 'images') -> list[str]:
    """Compare a number of files with the published one; returns what is wrong."""
    if not found:
        return [f'{split}: no {what}']
    if found != expected and not any_count:
        return [f'{split}: {found:,} {what}, expected the published {expected:,} (--any-count takes a subset)']
    return []


def convert_pairs(
    sources: Sequence[str | os.PathLike],
    pairs: Sequence[Pair],
    new: Path | None,
    translate: Callable[[np.ndarray], np.ndarray],
    options: Options,
    text: str,
    decode: Callable[[bytes], np.ndarray] = decode_label,
) -> None:
    """Check many images with their label maps, and write them.

    Args:
        sources: What was given, for the message.
        pairs: The files.
        new: Folder to write into; None only checks.
        translate: Stored values to written ones, such as a :class:`LabelTable`.
        options: The user's.
        text: What stands before the progress bar.
        decode: Bytes to label map (H, W). Defaults to :func:`decode_label`.

    Raises:
        PreparationError: If something is wrong; names every kind of problem.
    """
    check_space((file for pair in pairs for file in (pair.image, pair.label)), new, options.link)
    work = partial(convert_pair, new=new, decode=decode, translate=translate, link=options.link)
    raise_problems(sources, [p for found in run_parallel(work, pairs, options.nproc, text) for p in found])


def copy_images(
    sources: Sequence[str | os.PathLike],
    items: Sequence[tuple[SourceFile, str]],
    new: Path | None,
    options: Options,
    text: str,
) -> None:
    """Copy many images without decoding them.

    Args:
        sources: What was given, for the message.
        items: Per image, the file and its path in the new folder.
        new: Folder to write into; None only checks.
        options: The user's.
        text: What stands before the progress bar.

    Raises:
        PreparationError: If a file cannot be read or does not begin as an image.
    """
    check_space((file for file, _ in items), new, options.link)
    work = partial(copy_image, new=new, link=options.link)
    raise_problems(sources, [p for found in run_parallel(work, items, options.nproc, text) for p in found])


def convert_pair(
    pair: Pair,
    new: Path | None,
    decode: Callable[[bytes], np.ndarray],
    translate: Callable[[np.ndarray], np.ndarray],
    link: bool = False,
) -> list[str]:
    """Check an image with its label map, and write both.

    Args:
        pair: The files.
        new: Folder to write into; None only checks.
        decode: Bytes to label map (H, W), such as :func:`decode_label`.
        translate: Stored values to written ones, such as a :class:`LabelTable`.
        link: Whether to link to files on disk that stay as they are, instead of copying them.

    Returns:
        What is wrong, one line each; nothing is written then.
    """
    problems = []
    try:
        image = pair.image.read()
        size = image_size(image)
    except ValueError as error:
        problems.append(_about(pair.image, error))
    try:
        label = pair.label.read()
        stored = decode(label)
        written = translate(stored)
    except ValueError as error:
        problems.append(_about(pair.label, error))
    if problems:
        return problems
    height, width = written.shape
    if size != (width, height):
        return [f'{pair.label}: {width} x {height}, but its image {pair.image} is {size[0]} x {size[1]}']
    if new is not None:
        if pair.image_target is not None:
            _put(new, pair.image_target, image, pair.image if link else None)
        # A file that is not a picture (SBD's .mat) is written as one.
        if str(pair.label).endswith('.png') and np.array_equal(stored, written):
            _put(new, pair.label_target, label, pair.label if link else None)
        else:
            _put(new, pair.label_target, encode_label(written), None)
    return []


def copy_image(item: tuple[SourceFile, str], new: Path | None, link: bool = False) -> list[str]:
    """Copy a JPEG or PNG without decoding it.

    Args:
        item: The file, and its path in the new folder.
        new: Folder to write into; None only checks.
        link: Whether to link to a file on disk instead of copying it.

    Returns:
        What is wrong, one line each; nothing is written then.
    """
    file, target = item
    try:
        data = file.read()
    except ValueError as error:
        return [str(error)]
    if not data.startswith(_SIGNATURES):
        return [f'{file}: {"is empty" if not data else "is neither JPEG nor PNG"}']
    if new is not None:
        _put(new, target, data, file if link else None)
    return []


def _about(file: SourceFile, error: ValueError) -> str:
    text = str(error)
    return text if text.startswith(str(file)) else f'{file}: {text}'


def _put(new: Path, name: str, data: bytes, link_to: SourceFile | None) -> None:
    """Write a file, or link to it, below the new folder; names are made of what stands in an archive."""
    path = PureWindowsPath(name)  # knows both slashes, and drives
    if path.anchor or '..' in path.parts:
        raise PreparationError(f'{name!r} points outside of the new folder; do not trust this archive')
    target = new / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if link_to is not None and link_to.linkable:
        target.symlink_to(os.path.abspath(link_to.path))
    else:
        target.write_bytes(data)
