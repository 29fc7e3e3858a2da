"""Time and memory against tokens, as two panels."""

from collections.abc import Sequence
from pathlib import Path


def draw_tokens(
    tokens: Sequence[int], milliseconds: Sequence[float], kilobytes: Sequence[float], path: str | Path
) -> None:
    """Draw seconds and megabytes of a step over the tokens of an image, both axes logarithmic.

    Beside each stands the line that its smallest size would follow if all were proportional.

    Args:
        tokens (Sequence[int]): Tokens of an image.
        milliseconds (Sequence[float]): Per token.
        kilobytes (Sequence[float]): Per token.
        path (str | Path): PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), dpi=120, facecolor='white', layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    for ax, per_token, label, color in (
        (axes[0], milliseconds, 'step (s)', '#0b5fa5'),
        (axes[1], kilobytes, 'activations (MB)', '#d1661f'),
    ):
        whole = [value * count / 1e3 for value, count in zip(per_token, tokens, strict=True)]
        linear = [whole[0] * count / tokens[0] for count in tokens]
        ax.loglog(tokens, linear, linestyle=':', color='#666666', label='proportional')
        ax.loglog(tokens, whole, marker='o', markersize=4, color=color, label='measured')
        ax.set_xticks(tokens, [f'{count:,}' for count in tokens])
        ax.minorticks_off()
        ax.set_xlabel('tokens of an image')
        ax.set_ylabel(label)
        ax.grid(color='#e6e6e6')
        ax.spines[['top', 'right']].set_visible(False)
        ax.legend(frameon=False, fontsize=9)
    figure.savefig(path)
