"""Predictions drawn over images, with a legend that can be read at any image size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# The shorter side that a picture has at least: text beside a thumbnail could not be read.
MIN_SIDE = 320
PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (120, 120, 120)


class LegendRow(NamedTuple):
    """A line of a legend.

    Args:
        text (str): What it says.
        value (str): What stands at its right end.
        color (tuple[int, int, int], optional): RGB of its swatch.
        bar (float, optional): Length of a bar under it, in [0, 1].
        place (int): Where it stands among those that there is room for; lines of one place keep their order. Defaults
            to 0.
    """

    text: str
    value: str = ''
    color: tuple[int, ...] | None = None
    bar: float | None = None
    place: int = 0


def draw_segmentation(
    image: np.ndarray,
    label_map: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    opacity: float = 0.5,
    legend: bool = True,
    fixed_width: bool = False,
) -> np.ndarray:
    """The image under the colours of its classes; beside it the names of those that occur, largest first.

    Args:
        image (np.ndarray): (H, W, 3), uint8, BGR.
        label_map (np.ndarray): (H, W), labels.
        classes (Sequence[str]): Names, by label.
        palette (Sequence[Sequence[int]]): RGB colours, by label.
        opacity (float): Of the colours, in [0, 1]. Defaults to 0.5.
        legend (bool): Whether to draw the legend. Defaults to True.
        fixed_width (bool): Make the picture as large as it is for any label map, as the frames of a video must be: the
            legend is one column, in the order of the labels so that it does not flicker, and the smallest classes give
            way where there is no room. Defaults to False.

    Returns:
        np.ndarray: uint8, BGR. Images of under 320 pixels are enlarged where there is a legend.

    Raises:
        ValueError: Sizes differ, or the opacity is not in [0, 1].
    """
    if image.shape[:2] != label_map.shape:
        raise ValueError(f'image {image.shape[:2]} and label map {label_map.shape} differ in size')
    if not 0 <= opacity <= 1:
        raise ValueError(f'opacity={opacity} is not in [0, 1]')
    colors = np.array(palette, dtype=np.uint8)[:, ::-1][label_map]
    mixed = cv2.addWeighted(image, 1.0 - opacity, colors, opacity, 0)  # in 8 bits: aerial images are large
    if not legend:
        return mixed
    counts = np.bincount(label_map.reshape(-1), minlength=len(classes))
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda label: -counts[label])
    rows = [
        LegendRow(classes[i], _percent(counts[i] / label_map.size), tuple(palette[i]), place=i if fixed_width else 0)
        for i in order
    ]
    widest = [LegendRow(name, '100.0 %') for name in classes] if fixed_width else None
    return add_legend(mixed, rows, widest)


def draw_classification(
    image: np.ndarray, rows: Sequence[tuple[str, float]], names: Sequence[str] | None = None
) -> np.ndarray:
    """The image with its classes beside it.

    Args:
        image (np.ndarray): (H, W, 3), uint8, BGR.
        rows (Sequence[tuple[str, float]]): Names and probabilities, best first.
        names (Sequence[str], optional): All names there are, for a picture as large as it is with any of them, as the
            frames of a video must be. Defaults to None.

    Returns:
        np.ndarray: uint8, BGR; an image of under 320 pixels is enlarged.
    """
    widest = None if names is None else [LegendRow(name, '100.0 %', bar=1.0) for name in names]
    return add_legend(image, [LegendRow(name, _percent(score), bar=score) for name, score in rows], widest)


def add_legend(image: np.ndarray, rows: Sequence[LegendRow], fixed: Sequence[LegendRow] | None = None) -> np.ndarray:
    """Put a legend to the right of an image, or below one that is wide.

    Args:
        image (np.ndarray): (H, W, 3), uint8, BGR.
        rows (Sequence[LegendRow]): The lines, in columns where one does not hold them.
        fixed (Sequence[LegendRow], optional): Every line that may come: one column of their width, whatever ``rows``
            are, which are cut to the height. Defaults to None.

    Returns:
        np.ndarray: uint8, BGR.
    """
    scale = max(1.0, MIN_SIDE / min(image.shape[:2]))
    if scale > 1:
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    height, width = image.shape[:2]
    # Text grows with the picture, which is seen as a whole.
    bars = any(row.bar is not None for row in rows)
    layout = _Layout(max(13, round(min(height, width) / 24), round(max(height, width) / 55)), bars)
    below = width > 1.6 * height and fixed is None
    cell = max((layout.row_width(row) for row in (rows if fixed is None else fixed)), default=layout.size)
    if below:
        columns = max(1, min(len(rows), width // (cell + layout.gap)))
        cell = (width - layout.gap) // columns - layout.gap
        per_column = -(-len(rows) // columns)
        panel = Image.new('RGB', (width, per_column * layout.row_height + layout.gap), PAPER)
    else:
        per_column = max(1, (height - layout.gap) // layout.row_height)
        if fixed is not None:
            kept = rows if len(rows) <= per_column else rows[: per_column - 1]
            rest = len(rows) - len(kept)
            rows = sorted(kept, key=lambda row: row.place) + ([LegendRow(f'+ {rest} more')] if rest else [])
        columns = max(1, -(-len(rows) // per_column))
        panel = Image.new('RGB', (columns * (cell + layout.gap) + layout.gap, height), PAPER)
    for i, row in enumerate(rows):
        column, line = divmod(i, per_column)
        layout.draw(panel, row, layout.gap + column * (cell + layout.gap), layout.gap + line * layout.row_height, cell)
    array = np.asarray(panel)[..., ::-1]
    return np.concatenate([image, array], axis=0 if below else 1)


class _Layout:
    """Measures and draws the lines of a legend in one font size, in pixels."""

    def __init__(self, size: int, bars: bool) -> None:
        self.size = size
        self.font = _font(size)
        self.gap = max(4, size // 2)
        self.row_height = round((2.0 if bars else 1.6) * size)

    def row_width(self, row: LegendRow) -> int:
        swatch = self.size + self.gap if row.color is not None or row.bar is None else 0
        return swatch + self._width(_shorten(row.text)) + 2 * self.gap + self._width(row.value)

    def draw(self, panel: Image.Image, row: LegendRow, x: int, y: int, width: int) -> None:
        pen = ImageDraw.Draw(panel)
        start = x
        if row.color is not None:
            pen.rectangle((x, y + self.size // 8, x + self.size, y + self.size // 8 + self.size), row.color, FAINT)
            start += self.size + self.gap
        if row.bar is not None:
            bottom = y + round(1.4 * self.size)
            pen.rectangle((x, bottom, x + round(width * row.bar), bottom + max(1, self.size // 10)), (40, 110, 200))
        pen.text((start, y), _shorten(row.text), INK, font=self.font)
        pen.text((x + width - self._width(row.value), y), row.value, FAINT, font=self.font)

    def _width(self, text: str) -> int:
        return int(np.ceil(self.font.getlength(text)))


def _shorten(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip(' ,') + '\u2026'


def _percent(share: float) -> str:
    return '< 0.1 %' if 0 < share < 0.001 else f'{100 * share:.1f} %'


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: PIL's own font lacks most letters beyond ASCII."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')), size)
