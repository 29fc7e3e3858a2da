"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Numbers are written into the cells of at most so many classes, and names beside at most so many.
MOST_WITH_NUMBERS = 25
MOST_WITH_NAMES = 200


def draw_confusion_matrix(shares: np.ndarray, classes: Sequence[str], columns: Sequence[str], file: str | Path) -> None:
    """Draw a confusion matrix; the shades follow the square root of the shares, so that rare confusions show.

    Args:
        shares (np.ndarray): (N, M), each row of sum 1 or all NaN; rows the truth, columns the prediction.
        classes (Sequence[str]): Names of the rows.
        columns (Sequence[str]): Names of the columns.
        file (str or Path): The picture, ``.png``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    count = len(classes)
    side = float(np.clip(0.42 * count if count <= MOST_WITH_NUMBERS else 0.2 * count, 3.5, 40))  # inches
    figure = Figure(figsize=(side + 3, side + 2), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor('lightgrey')  # classes that do not occur
    picture = axes.imshow(np.ma.masked_invalid(shares), cmap='Blues', norm=PowerNorm(0.5, vmin=0, vmax=1))
    axes.set_xlabel('prediction')
    axes.set_ylabel('truth')
    axes.xaxis.set_label_position('top')
    if count <= MOST_WITH_NAMES:
        size = 9 if count <= MOST_WITH_NUMBERS else 8
        axes.set_xticks(range(len(columns)), list(map(_shorten, columns)), rotation=90, fontsize=size)
        axes.set_yticks(range(count), list(map(_shorten, classes)), fontsize=size)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    if count <= MOST_WITH_NUMBERS:
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.005:
                color = 'white' if share > 0.4 else 'black'
                axes.text(j, i, f'{100 * share:.0f}', ha='center', va='center', fontsize=8, color=color)
    bar = figure.colorbar(picture, ax=axes, shrink=min(1.0, 5 / side), ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.set_label('share of the true class (numbers: %)' if count <= MOST_WITH_NUMBERS else 'share of the true class')
    bar.ax.set_yticklabels(['0', '1 %', '10 %', '25 %', '50 %', '100 %'])
    figure.savefig(str(file), dpi=100)


def _shorten(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else name[: limit - 1] + '\u2026'
