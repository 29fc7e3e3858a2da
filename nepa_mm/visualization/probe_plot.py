"""Accuracy over depth: what the layers of a backbone know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # evaluation draws with this package, not the other way round
    from ..evaluation.probe_report import ProbeReport

COLORS = dict(avg='#0b5fa5', avg_norm='#3a9e5c', last='#d1661f', bos='#7d4fa8')
NAMES = dict(avg='mean of patches', avg_norm='mean of normalised patches', last='last patch', bos='BOS')


def draw_accuracy_over_depth(report: ProbeReport, path: str | Path, title: str = '') -> None:
    """Draw a panel per probe: accuracy over layers, a line per pooling, chance, and the best layer marked.

    Args:
        report (ProbeReport): With at least one probe.
        path (str | Path): PNG to write.
        title (str): Above the panels. Defaults to none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = report.kinds()
    figure = Figure(figsize=(6.2 * len(kinds), 4.8), dpi=120, facecolor='white', layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for ax, kind in zip(axes, kinds, strict=True):
        _draw_panel(ax, report, kind)
    axes[0].set_ylabel('top-1 accuracy (%)')
    axes[0].legend(*axes[0].get_legend_handles_labels(), loc='best', frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    figure.savefig(path)


def _draw_panel(ax: Any, report: ProbeReport, kind: str) -> None:
    read = report.kinds()[kind]
    layers = list(dict.fromkeys(result.layer for result in report.results))
    x = {layer: i for i, layer in enumerate(layers)}
    for pooling in report.poolings:
        results = [result for result in report.results if result.pooling == pooling]
        ax.plot(
            [x[r.layer] for r in results],
            [read(r) for r in results],
            marker='o',
            markersize=4,
            color=COLORS[pooling],
            label=NAMES[pooling],
        )
    ax.axhline(report.chance, color='#666666', linestyle=':', linewidth=1.2, label='commonest class')
    best = report.best(read)
    low, high = ax.get_ylim()
    room = 0.09 * (high - low)  # for the number above the star
    ax.set_ylim(max(0, low), min(100, high + room))
    below = read(best) + room > 100
    side = 'left' if x[best.layer] == 0 else 'right' if x[best.layer] == len(layers) - 1 else 'center'
    ax.plot(
        x[best.layer],
        read(best),
        marker='*',
        markersize=17,
        color=COLORS[best.pooling],
        markeredgecolor='white',
        clip_on=False,
    )
    ax.annotate(
        f'{read(best):.1f} %',
        (x[best.layer], read(best)),
        xytext=(0, -12 if below else 12),
        textcoords='offset points',
        ha=side if len(layers) > 1 else 'center',
        va='top' if below else 'bottom',
        fontweight='bold',
        color=COLORS[best.pooling],
    )
    ax.set_title(kind, fontsize=11)
    ax.set_xlabel('layer (index as in out_indices; embed: the patch embeddings)')
    step = max(1, len(layers) // 13)
    shown = [i for i in range(len(layers)) if i % step == 0 or i == len(layers) - 1]
    ax.set_xticks(shown, [str(layers[i]) for i in shown])
    ax.grid(axis='y', color='#e6e6e6')
    ax.spines[['top', 'right']].set_visible(False)
