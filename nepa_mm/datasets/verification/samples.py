"""One sample of a data set: does it decode, does its label fit it."""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.dataset import BaseDataset
from PIL import Image

from ..errors import UnreadableImage
from ..png_chunks import png_fault
from ..preparation import DECODE_ERRORS
from ..reading import read_image

# Roles of a stored label value besides the classes 0, 1, 2, ...
IGNORED, INVALID = -1, -2
# Colours of a mask that are remembered.
MAX_COLORS = 256


class LabelRule:
    """What training makes of the stored values of label maps, as mmseg's ``LoadAnnotations`` and losses do.

    Args:
        num_classes: Classes of the data set.
        reduce_zero_label: Whether 0 is ignored and k becomes class k - 1.
        ignore_index: Value that losses and metrics leave out, after that.
        label_map: mmseg's map of the data set's own classes to fewer, if there is one.
        backend: Decoder of the label maps.
    """

    def __init__(
        self,
        num_classes: int,
        reduce_zero_label: bool = False,
        ignore_index: int = 255,
        label_map: dict[int, int] | None = None,
        backend: str = 'pillow',
    ) -> None:
        self.num_classes, self.reduce_zero_label, self.backend = num_classes, reduce_zero_label, backend
        self.ignore_index = ignore_index
        # Stored value to class, IGNORED or INVALID.
        self.roles = np.full(256, INVALID, np.int16)
        for value in range(256):
            label = value
            if reduce_zero_label:
                label = 255 if value in (0, 255) else value - 1
            label = (label_map or {}).get(label, label)
            if label == ignore_index:
                self.roles[value] = IGNORED
            elif label < num_classes:
                self.roles[value] = label


@dataclass
class Sample:
    """What was found in one sample.

    Args:
        path: File of the image.
        problems: File and what is wrong with it.
        kinds: The kinds of these problems, such as 'colors'.
        counts: Pixels per stored label value, (256,); None without a label map.
        colors: Colours of a colour-coded mask, the first of them.
        gt_label: Class of an image; None in other tasks.
        all_ignored: Whether no pixel has a class.
    """

    path: str = ''
    problems: list[tuple[str, str]] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    counts: np.ndarray | None = None
    colors: set[tuple[int, ...]] = field(default_factory=set)
    gt_label: int | None = None
    all_ignored: bool = False

    def add(self, kind: str, path: str, text: str) -> None:
        """Note a problem."""
        self.kinds.add(kind)
        self.problems.append((path, text))


def check_sample(shared: tuple[Any, LabelRule | None], index: int) -> Sample:
    """Check a sample.

    Args:
        shared: The data set, and the rule of its label maps (None where it has none).
        index: Of the sample.

    Returns:
        What was found.
    """
    dataset, rule = shared
    info = list_sample(dataset, index)
    sample = Sample(path=info['img_path'], gt_label=info.get('gt_label'))
    try:
        info = dataset.get_data_info(index)
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, UnreadableImage) else error
        sample.add('image', sample.path, f'cannot be read: {reason}')
        return sample
    size, is_turned = _check_image(sample, info)
    if rule is not None:
        _check_label(sample, info, rule, size, is_turned)
    return sample


def list_sample(dataset: Any, index: int) -> dict:
    """What a data set has listed of a sample: its paths and its label, without the image itself."""
    # A data set of images in one big file reads the image in get_data_info.
    return BaseDataset.get_data_info(dataset, index)


def _check_image(sample: Sample, info: dict) -> tuple[tuple[int, int] | None, bool]:
    """Read the image as training does; gives its width and height, and whether EXIF has made one the other."""
    path = info['img_path']
    try:
        data = info['img_bytes'] if 'img_bytes' in info else fileio.get(path)
        height, width, _ = read_image(data, path).shape
    except OSError as error:
        sample.add('image', path, f'cannot be read: {error.strerror or error}')
        return None, False
    except UnreadableImage as error:
        sample.add('image', path, f'cannot be read: {error.reason}')
        return None, False
    return (width, height), bool(info.get('seg_map_path')) and _lies(data, (width, height))


def _lies(data: bytes, upright: tuple[int, int]) -> bool:
    """Whether the pixels of an image are stored in another size than they are read in."""
    with Image.open(io.BytesIO(data)) as image:
        return image.size != upright


def _check_label(
    sample: Sample, info: dict, rule: LabelRule, size: tuple[int, int] | None, image_is_turned: bool
) -> None:
    path = info.get('seg_map_path')
    if path is None:
        return
    if not os.path.exists(path):
        sample.add('missing', path, f'is missing: the label map of {info["img_path"]}')
        return
    try:
        fault = png_fault(Path(path).read_bytes())
        if fault is not None:
            raise ValueError(fault)
        with Image.open(path) as image:  # by its path: Pillow names it
            mode, label = image.mode, np.array(image)
    except DECODE_ERRORS as error:
        sample.add('label', path, f'cannot be decoded: {error}')
        return
    if label.ndim == 3:
        _note_colors(sample, path, mode, label)
        return
    if mode == 'P' and rule.backend != 'pillow':
        sample.add('palette', path, f'is a palette image, which the decoder {rule.backend!r} turns into colours')
    if label.dtype.kind == 'f' or label.max() > 255 or label.min() < 0:
        sample.add(
            'depth',
            path,
            f'mode {mode}, values {label.min()} to {label.max()}, expected whole ones, 0 to 255: a run refuses it',
        )
        return
    if size is not None and image_is_turned and label.shape == size:
        sample.add(
            'exif',
            info['img_path'],
            f'carries an EXIF rotation: it is read as {size[0]} x {size[1]}, but its label map is not turned, '
            f'{size[1]} x {size[0]}: a run refuses it',
        )
    elif size is not None and label.shape[::-1] != size:
        sample.add(
            'size',
            path,
            f'{label.shape[1]} x {label.shape[0]}, but its image {info["img_path"]} is {size[0]} x {size[1]}',
        )
    sample.counts = np.bincount(label.astype(np.uint8).ravel(), minlength=256)
    roles = rule.roles[sample.counts > 0]
    if (roles == INVALID).any():
        strange = np.flatnonzero((sample.counts > 0) & (rule.roles == INVALID)).tolist()
        some = ', '.join(map(str, strange[:10])) + (f' and {len(strange) - 10} more' if len(strange) > 10 else '')
        sample.add('range', path, f'label {some}: no class, and not ignored')
    sample.all_ignored = bool((roles == IGNORED).all())


def _note_colors(sample: Sample, path: str, mode: str, label: np.ndarray) -> None:
    colors = label[..., :3] if mode in ('RGB', 'RGBA') else label[..., :1].repeat(3, axis=-1)
    if (colors == colors[..., :1]).all():
        sample.add('grey', path, f'mode {mode} with three equal channels, expected a single one')
        return
    found = np.unique(colors.reshape(-1, 3), axis=0)
    sample.colors = {tuple(color) for color in found[:MAX_COLORS].tolist()}
    sample.add('colors', path, f'mode {mode}, {len(found)} colours: a picture of the classes, not their numbers')
