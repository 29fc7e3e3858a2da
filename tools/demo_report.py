"""What the demo ends with: its numbers, its table and its picture (see ``tools/demo.py``)."""

import contextlib
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STARTS = ('random', 'nepa')
SCENES_IN_PICTURE = 4
SMOKE = 'SMOKE NUMBERS: --quick trains each model for a few iterations; they say nothing about NEPA'
NEPA_BLUE = '#0b5fa5'


def collect(records: Mapping[str, Sequence[dict]], num_classes: int) -> dict[str, Any]:
    """Take the numbers of the demo out of the logs of its runs.

    Args:
        records: Per run ('pretrain', 'segment_random', 'segment_nepa', 'linear_random', 'linear_nepa') the records of
            its scalars.json.
        num_classes: Number of classes.

    Returns:
        ``pretraining`` (means over the last tenth of the run: single batches scatter), ``segmentation``, ``linear`` and
        ``chance`` in percent, and the pretraining ``curve``.

    Raises:
        ValueError: If a run logged no such number.
    """
    curve = [record for record in records['pretrain'] if 'copy_baseline' in record]
    if not curve:
        raise ValueError('the pretraining logged no copy_baseline')
    last = curve[-max(1, len(curve) // 10) :]
    figures = ('loss', 'copy_baseline', 'target_std', 'target_mean_norm')

    def final(run: str, key: str) -> float:
        values = [record[key] for record in records[run] if key in record]
        if not values:
            raise ValueError(f'the run {run} logged no {key}')
        return values[-1]

    return dict(
        pretraining={key: sum(record[key] for record in last) / len(last) for key in figures},
        segmentation={
            start: dict(mIoU=final(f'segment_{start}', 'mIoU'), pixel_accuracy=final(f'segment_{start}', 'aAcc'))
            for start in STARTS
        },
        linear={start: dict(accuracy=final(f'linear_{start}', 'accuracy/top1')) for start in STARTS},
        chance=dict(accuracy=100 / num_classes),
        curve={key: [record[key] for record in curve] for key in ('step', 'loss', 'copy_baseline')},
    )


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    packages = {}
    for name in ('torch', 'onedl-mmengine', 'onedl-mmpretrain', 'onedl-mmsegmentation', 'timm'):
        with contextlib.suppress(PackageNotFoundError):  # upstream's stack has other names
            packages[name] = version(name)
    return dict(
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU',
        cores=len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        platform=platform.platform(),
        python=platform.python_version(),
        packages=packages,
    )


def format_table(results: Mapping[str, Any]) -> str:
    """The table that the demo ends with.

    Args:
        results: From :func:`collect`.
    """
    pretraining, segmentation, linear = results['pretraining'], results['segmentation'], results['linear']
    loss, copying = pretraining['loss'], pretraining['copy_baseline']
    verdict = 'NEPA beats it' if loss < copying else 'NEPA does NOT beat it'
    rows = [('validation scenes, %', 'from random', 'from NEPA')]
    rows += [
        (name, *(f'{values[start][key]:.1f}' for start in STARTS))
        for name, values, key in (
            ('UPerNet: mIoU', segmentation, 'mIoU'),
            ('UPerNet: pixel accuracy', segmentation, 'pixel_accuracy'),
            ('linear head, frozen features: accuracy', linear, 'accuracy'),
        )
    ]
    table = [f'{name:<40}{random:>12}{nepa:>12}' for name, random, nepa in rows]
    rule = '-' * len(table[0])
    return '\n'.join(
        [
            f'{"pretraining loss of NEPA":<40}{loss:>24.3f}',
            f'{"loss of copying the current patch":<40}{copying:>24.3f}   {verdict}',
            rule,
            table[0],
            rule,
            *table[1:],
            rule,
            f'Guessing a class gets {results["chance"]["accuracy"]:.1f} % accuracy.',
        ]
    )


def draw_picture(results: Mapping[str, Any], meta: Mapping[str, Any], folders: Mapping[str, Path], path: Path) -> None:
    """Draw photo, truth and both predictions for the first validation scenes, the curve and the numbers.

    Args:
        results: What results.json holds.
        meta: meta.json of the scenes.
        folders: Where the 'photo', 'truth', 'random' and 'nepa' images lie, under the same names; masks hold 1 + class.
        path: PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 10.2), dpi=110, facecolor='white')
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(1.62, 1))
    _draw_scenes(left, results, meta, folders)
    grid = dict(left=0.14, right=0.97, top=0.89, bottom=0.01, hspace=0.42)
    curve_ax, bar_ax, legend_ax = right.subplots(3, 1, height_ratios=(1.25, 1, 0.62), gridspec_kw=grid)
    _draw_curve(curve_ax, results['curve'])
    _draw_bars(bar_ax, results)
    _draw_legend(legend_ax, meta)
    host = results['machine']
    minutes = sum(results['seconds'].values()) / 60
    what = f'{host["cores"]} CPU cores' if host['device'] == 'CPU' else host['device']
    title = SMOKE if results['smoke'] else f'NEPA demo: {minutes:.0f} minutes on {what}, seed {results["seed"]}'
    color = '#b00020' if results['smoke'] else 'black'
    figure.suptitle(title, fontsize=14, fontweight='bold', color=color, y=0.985)
    figure.savefig(path)


def _draw_scenes(figure: Any, results: Mapping[str, Any], meta: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
    """A row per scene: photo, truth, from random, from NEPA."""
    import numpy as np
    from PIL import Image

    palette = np.array([(0, 0, 0), *meta['palette']], np.uint8)  # no pixel of a scene is 0
    titles = dict(photo='photo', truth='truth', random='from random', nepa='from NEPA')
    scenes = sorted(file.stem for file in folders['photo'].glob('*.jpg'))[:SCENES_IN_PICTURE]
    grid = dict(left=0.015, right=0.99, top=0.89, bottom=0.035, wspace=0.03, hspace=0.13)
    axes = np.reshape(figure.subplots(len(scenes), 4, gridspec_kw=grid), (len(scenes), 4))
    for row, scene in zip(axes, scenes, strict=True):
        truth = np.asarray(Image.open(folders['truth'] / f'{scene}.png'))
        for ax, (key, title) in zip(row, titles.items(), strict=True):
            if key == 'photo':
                ax.imshow(np.asarray(Image.open(folders[key] / f'{scene}.jpg')))
            else:
                mask = np.asarray(Image.open(folders[key] / f'{scene}.png'))
                ax.imshow(palette[mask], interpolation='nearest')
            if key in STARTS:
                ax.set_xlabel(f'{100 * (mask == truth).mean():.0f} % of pixels right', fontsize=9, labelpad=2)
                title += f'\nmIoU {results["segmentation"][key]["mIoU"]:.1f}'
            if scene == scenes[0]:
                ax.set_title(title, fontsize=12, pad=6)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)


def _draw_curve(ax: Any, curve: Mapping[str, list]) -> None:
    """The pretraining loss against what copying would get."""
    ax.plot(curve['step'], curve['copy_baseline'], color='0.5', linestyle='--', label='copying the current patch')
    ax.plot(curve['step'], curve['loss'], color=NEPA_BLUE, linewidth=2, label='NEPA')
    ax.set_title('Pretraining: predicting the next patch embedding', fontsize=12)
    ax.set_xlabel('iteration')
    ax.set_ylabel('loss (-cosine)')
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.2 * (high - low))  # room for the legend above the curves
    ax.legend(frameon=False, fontsize=10, ncols=2, loc='upper right')
    ax.grid(alpha=0.25)
    ax.spines[['top', 'right']].set_visible(False)


def _draw_bars(ax: Any, results: Mapping[str, Any]) -> None:
    """The numbers of the table."""
    segmentation, linear = results['segmentation'], results['linear']
    for offset, start, color, label in (
        (-0.19, 'random', '0.7', 'from random'),
        (0.19, 'nepa', NEPA_BLUE, 'from NEPA'),
    ):
        values = [segmentation[start]['mIoU'], segmentation[start]['pixel_accuracy'], linear[start]['accuracy']]
        bars = ax.bar([i + offset for i in range(3)], values, width=0.36, color=color, label=label)
        ax.bar_label(bars, fmt='%.1f', fontsize=10, padding=2)
    ax.set_xticks(range(3), ['UPerNet\nmIoU', 'UPerNet\npixel accuracy', 'linear head,\nfrozen features'])
    ax.set(ylim=(0, 125), yticks=range(0, 101, 25), ylabel='%')
    ax.set_title('Validation, both starts trained alike', fontsize=12)
    ax.legend(frameon=False, fontsize=10, ncols=2, loc='upper left')
    ax.spines[['top', 'right']].set_visible(False)


def _draw_legend(ax: Any, meta: Mapping[str, Any]) -> None:
    """The colour of each class."""
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=[value / 255 for value in color], edgecolor='0.4', linewidth=0.5, label=name)
        for name, color in zip(meta['classes'], meta['palette'], strict=True)
    ]
    ax.axis('off')
    ax.legend(handles=patches, ncols=4, loc='center', frameon=False, fontsize=11, title='Classes', title_fontsize=12)
