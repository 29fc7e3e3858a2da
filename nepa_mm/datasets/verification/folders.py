"""Files that lie in a data set's folders and that it does not read."""

import os
from pathlib import Path

from ..preparation import name_some
from .configs import Part
from .report import Finding

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.gif', '.avif', '.heic')


def look_at_folders(part: Part) -> list[Finding]:
    """Compare what a segmentation data set reads with what lies in its folders.

    Args:
        part: The data set. One that reads a list of names, or has no label maps, is passed over.

    Returns:
        What is left unread.
    """
    dataset = part.dataset
    if dataset is None or part.rule is None or dataset.ann_file:
        return []
    images, labels = (dataset.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    findings = []
    # Image and label maps in one folder are told apart by their suffixes alone.
    apart = images and os.path.realpath(images) != os.path.realpath(labels or '')
    if apart and (unread := _unread(images, {info['img_path'] for info in infos}, IMAGES)):
        findings.append(
            Finding(
                f'{len(unread):,} images do not end in {dataset.img_suffix} and are not read: {name_some(unread)}',
                f'{part.key}.img_suffix, or rename the files',
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
    """Names below a folder that end like this and are not among the files read."""
    known = {os.path.normpath(path) for path in read}
    return [
        str(path.relative_to(folder))
        for path in sorted(Path(folder).rglob('*'))
        if path.name.lower().endswith(tuple(suffix.lower() for suffix in suffixes))
        and os.path.normpath(path) not in known
    ]
