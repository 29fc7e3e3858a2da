"""What :func:`nepa_mm.classify` and :func:`nepa_mm.segment` return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Score(NamedTuple):
    """A class and its probability."""

    label: int
    score: float
    class_name: str | None


@dataclass(frozen=True)
class Classification:
    """The classes of an image.

    Args:
        top (tuple[Score, ...]): The most probable classes, best first.
        scores (np.ndarray): (num_classes,), probabilities.
        path (str, optional): The image's file; None for one that was handed in from memory.
    """

    top: tuple[Score, ...]
    scores: np.ndarray = field(repr=False)
    path: str | None = None

    @property
    def label(self) -> int:
        """Index of the most probable class."""
        return self.top[0].label

    @property
    def score(self) -> float:
        """Its probability."""
        return self.top[0].score

    @property
    def class_name(self) -> str | None:
        """Its name; None where the model knows no names."""
        return self.top[0].class_name

    def to_dict(self) -> dict:
        """The result in the words of JSON, without the full ``scores``."""
        return dict(path=self.path, top=[score._asdict() for score in self.top])


@dataclass(frozen=True)
class Segmentation:
    """The class of each pixel of an image.

    Args:
        label_map (np.ndarray): (H, W) of the image's own size; uint8, or uint16 for more than 256 classes.
        classes (tuple[str, ...]): Names, by label; the labels themselves where the model knows no names.
        palette (list[list[int]]): RGB colours in 0..255, by label.
        path (str, optional): The image's file; None for one that was handed in from memory.
    """

    label_map: np.ndarray = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    palette: list[list[int]] = field(repr=False)
    path: str | None = None

    @property
    def shares(self) -> dict[str, float]:
        """Share of the image that each class covers, in (0, 1], largest first; only classes that occur."""
        counts = np.bincount(self.label_map.reshape(-1), minlength=len(self.classes))
        order = sorted(np.flatnonzero(counts).tolist(), key=lambda label: -counts[label])
        return {self.classes[label]: float(counts[label] / self.label_map.size) for label in order}

    def draw(self, image: np.ndarray, opacity: float = 0.5, legend: bool = True) -> np.ndarray:
        """The image under its classes' colours.

        Args:
            image (np.ndarray): (H, W, 3), uint8, BGR.
            opacity (float): Of the colours, in [0, 1]. Defaults to 0.5.
            legend (bool): Whether names stand beside it. Defaults to True.

        Returns:
            np.ndarray: uint8, BGR; larger than the image where there is a legend.
        """
        from nepa_mm.visualization.overlay import draw_segmentation

        return draw_segmentation(image, self.label_map, self.classes, self.palette, opacity=opacity, legend=legend)

    def to_dict(self) -> dict:
        """The result in the words of JSON, without the pixels."""
        height, width = self.label_map.shape
        return dict(path=self.path, height=height, width=width, shares=self.shares)
