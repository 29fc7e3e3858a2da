"""Files that lie in a data set's folders and that it does not read."""

import os

from ..preparation import name_some
from .configs import Part
from .report import Finding
from .samples import list_sample

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.gif', '.avif', '.heic')


def look_at_folders(part: Part) -> list[Finding]:
    """Compare what a data set reads with what lies in its folders.

    Args:
        part: The data set. One that reads a list of names, or no folder of images, is passed over.

    Returns:
        What is left unread.
    """
    dataset = part.dataset
    option = 'extensions' if part.rule is None else 'img_suffix'
    if not hasattr(dataset, option) or dataset.ann_file:
        return []
    images, labels = (dataset.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
    infos = [list_sample(dataset, i) for i in range(len(dataset))]
    findings = []
    # Image and label maps in one folder are told apart by their suffixes alone.
    apart = images and os.path.realpath(images) != os.path.realpath(labels or '')
    if apart and (unread := _unread(images, {info['img_path'] for info in infos}, IMAGES)):
        given = getattr(dataset, option)
        suffixes = given if isinstance(given, str) else ', '.join(sorted(given))
        findings.append(
            Finding(
                f'{len(unread):,} images do not end in {suffixes} and are not read: {name_some(unread)}',
                f'{part.key}.{option}, or rename the files',
                error=False,
            )
        )
    if labels and os.path.isdir(labels):
        read = {info['seg_map_path'] for info in infos}
        if unread := _unread(labels, read, (dataset.seg_map_suffix,)):
            findings.append(
                Finding(
                    f'{len(unread):,} label maps belong to no image: {name_some(unread)}',
                    f'{part.key}.data_prefix, img_suffix, seg_map_suffix, or the missing images',
                    error=False,
                )
            )
    return findings


def _unread(folder: str, read: set[str], suffixes: tuple[str, ...]) -> list[str]:
    """Names below a folder that end like this and are not among the files read; hidden files are not meant."""
    known = {os.path.normpath(path) for path in read}
    endings = tuple(suffix.lower() for suffix in suffixes)
    found = (
        os.path.normpath(os.path.join(parent, name))
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(endings) and not name.startswith('.')
    )
    return sorted(os.path.relpath(path, folder) for path in found if path not in known)
