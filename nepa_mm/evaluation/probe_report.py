"""What a probe of many layers ends with: a table, and files."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .probe import ProbeResult

RANK = 'effective rank'


@dataclass(frozen=True)
class ProbeReport:
    """Probes of layers and poolings, and what they were made of.

    Args:
        results (Sequence[ProbeResult]): In the order of depth.
        chance (float): Accuracy in percent of always answering the commonest class of the validation set.
        about (dict[str, Any]): Config, checkpoint, attention, numbers of images: what the numbers belong to.
    """

    results: Sequence[ProbeResult]
    chance: float
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def k(self) -> int | None:
        """The number of neighbours that is shown where there is room for one: the nearest to 20 (DINO's choice)."""
        return min(self.results[0].knn, key=lambda k: abs(k - 20), default=None)

    @property
    def poolings(self) -> list[str]:
        """The poolings, in order."""
        return list(dict.fromkeys(result.pooling for result in self.results))

    def kinds(self) -> dict[str, Callable[[ProbeResult], float]]:
        """Title of each kind of probe that was made, and how to read its top-1 accuracy from a result."""
        kinds: dict[str, Callable[[ProbeResult], float]] = {}
        if self.results[0].linear is not None:
            kinds['linear probe'] = lambda result: result.linear[0]  # type: ignore[index]
        if self.k is not None:
            kinds[f'k-NN, k = {self.k}'] = lambda result: result.knn[self.k][0]  # type: ignore[index]
        return kinds

    def best(self, read: Callable[[ProbeResult], float]) -> ProbeResult:
        """The result with the highest accuracy, the lowest layer of several."""
        return max(self.results, key=read)

    def chosen(self) -> ProbeResult | None:
        """The result that the held-out part of the *training* set would choose; None where nothing was held out."""
        known = [result for result in self.results if result.held_out is not None]
        return max(known, key=lambda result: result.held_out or 0.0, default=None)

    def table(self) -> str:
        """Layers down, probes and poolings across; the best of each probe is marked."""
        kinds, poolings = self.kinds(), self.poolings
        by_key = {(result.layer, result.pooling): result for result in self.results}
        layers = list(dict.fromkeys(result.layer for result in self.results))
        title_width = max(len(title) + 2 for title in (*kinds, RANK))
        width = max(10, *(len(p) + 2 for p in poolings), -(-title_width // len(poolings)))
        columns: list[tuple[str, list[str]]] = []
        for title, read in kinds.items():
            best = self.best(read)
            cells = [
                f'{read(by_key[layer, p]):.1f}{"*" if by_key[layer, p] is best else " "}'
                for layer in layers
                for p in poolings
            ]
            columns.append((title, cells))
        columns.append((RANK, [f'{by_key[layer, p].effective_rank:.1f} ' for layer in layers for p in poolings]))
        group = width * len(poolings)
        lines = [
            f'{"":<8}' + ''.join(f'{title:>{group}}' for title, _ in columns),
            f'{"layer":<8}' + ''.join(f'{p + " ":>{width}}' for _ in columns for p in poolings),
        ]
        for row, layer in enumerate(layers):
            part = slice(row * len(poolings), (row + 1) * len(poolings))
            lines.append(f'{layer!s:<8}' + ''.join(f'{cell:>{width}}' for _, cells in columns for cell in cells[part]))
        return '\n'.join(lines)

    def summary(self) -> str:
        """The best of each probe, what could have been chosen without the validation set, and what did not converge."""
        lines = [f'Top-1 accuracy in percent; always the commonest class: {self.chance:.1f}.']
        for title, read in self.kinds().items():
            best = self.best(read)
            lines.append(
                f'{title}: best {read(best):.1f} at layer {best.layer}, {best.pooling} (* above; the best of '
                f'{len(self.results)} on the validation set itself, so a little too good).'
            )
        chosen = self.chosen()
        if chosen is not None and chosen.linear is not None:
            lines.append(
                f'linear probe, chosen on a held-out fifth of the training set: layer {chosen.layer}, '
                f'{chosen.pooling}: {chosen.linear[0]:.1f}.'
            )
        stopped = [f'{r.layer} {r.pooling}' for r in self.results if r.converged is False]
        if stopped:
            lines.append(
                f'linear probe: the solver stopped at its last iteration for {len(stopped)} ({", ".join(stopped[:6])}'
                f'{", ..." if len(stopped) > 6 else ""}); their weight decay is too small for a minimum in reach.'
            )
        return '\n'.join(lines)

    def write_json(self, path: Path) -> None:
        """Write everything."""
        content = dict(about=self.about, chance=self.chance, results=[asdict(result) for result in self.results])
        path.write_text(json.dumps(content, indent=1))

    def write_csv(self, path: Path) -> None:
        """Write a row per layer and pooling, top-1 and top-5 per probe."""
        ks = list(self.results[0].knn)
        names = ['layer', 'pooling', 'effective_rank']
        names += [f'knn{k}_{top}' for k in ks for top in ('top1', 'top5')]
        names += ['linear_top1', 'linear_top5', 'weight_decay', 'held_out']
        with path.open('w', newline='') as stream:
            writer = csv.writer(stream)
            writer.writerow(names)
            for r in self.results:
                knn = [value for k in ks for value in r.knn[k]]
                linear = r.linear or (None, None)
                row = [r.layer, r.pooling, r.effective_rank, *knn, *linear, r.weight_decay, r.held_out]
                writer.writerow('' if value is None else value for value in row)
