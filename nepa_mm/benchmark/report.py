"""What a benchmark ends with: figures with their spread, beside targets and limits, and the machine they belong to."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .machine import describe_machine

COMPARISONS = {'<=': lambda value, bound: value <= bound, '>=': lambda value, bound: value >= bound}


@dataclass(frozen=True)
class Figure:
    """One measured quantity.

    Args:
        name (str): What was measured.
        values (tuple[float, ...]): One value per round.
        unit (str): Unit of the values: 's', 'img/s', 'MB', or 'ratio'.
        target (tuple[str, float], optional): '<=' or '>=' and a number in the same unit. Defaults to None.
        limit (str): What bounds the figure, measured in the same run: another figure's name or a few words.
            Defaults to ''.
        note (str): What a reader must know. Defaults to ''.

    Raises:
        ValueError: There are no values, or the comparison is neither '<=' nor '>='.
    """

    name: str
    values: tuple[float, ...]
    unit: str
    target: tuple[str, float] | None = None
    limit: str = ''
    note: str = ''

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f'Figure {self.name!r} has no values; measure at least one round.')
        if self.target is not None and self.target[0] not in COMPARISONS:
            raise ValueError(f"Figure {self.name!r}: target {self.target!r} is neither ('<=', x) nor ('>=', x).")

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The lower quartile; the value itself where there is one only."""
        return self._quartiles()[0]

    @property
    def high(self) -> float:
        """The upper quartile."""
        return self._quartiles()[1]

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the target; None without one."""
        if self.target is None:
            return None
        comparison, bound = self.target
        return COMPARISONS[comparison](self.median, bound)

    def _quartiles(self) -> tuple[float, float]:
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method='inclusive')
        return low, high


@dataclass
class Report:
    """The figures of one run of one benchmark.

    Args:
        name (str): Name of the benchmark; the files are named after it.
        command (str): The command that makes this report again.
        figures (list[Figure]): In the order in which they are shown. Defaults to none.
        settings (dict[str, Any]): What was measured on: sizes, threads, dtype. Defaults to none.
    """

    name: str
    command: str
    figures: list[Figure] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=describe_machine)

    def add(
        self,
        name: str,
        values: Sequence[float],
        unit: str,
        target: tuple[str, float] | None = None,
        limit: str = '',
        note: str = '',
    ) -> Figure:
        """Append a figure.

        Args:
            name (str): As in :class:`Figure`; so are the others.
            values (Sequence[float]): One per round.
            unit (str): Unit of the values.
            target (tuple[str, float], optional): Comparison and bound. Defaults to None.
            limit (str): What bounds it. Defaults to ''.
            note (str): What a reader must know. Defaults to ''.

        Returns:
            Figure: The figure.
        """
        figure = Figure(name, tuple(float(value) for value in values), unit, target, limit, note)
        self.figures.append(figure)
        return figure

    def __getitem__(self, name: str) -> Figure:
        """The figure of that name.

        Raises:
            KeyError: There is none.
        """
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise KeyError(f'report {self.name!r} has no figure {name!r}; it has {[f.name for f in self.figures]}')

    def markdown(self) -> str:
        """A table of medians, quartiles and targets, and under it the circumstances."""
        rows = ['| figure | median | quartiles | unit | target | limit and note |', '|---|---|---|---|---|---|']
        for f in self.figures:
            target = '' if f.target is None else f'{f.target[0]} {f.target[1]:g}: {"met" if f.met else "missed"}'
            about = '; '.join(part for part in (f.limit, f.note) if part)
            spread = f'{_digits(f.low)} to {_digits(f.high)}'
            rows.append(f'| {f.name} | {_digits(f.median)} | {spread} | {f.unit} | {target} | {about} |')
        settings = ', '.join(f'{key} {value}' for key, value in self.settings.items())
        machine = ', '.join(f'{key} {value}' for key, value in self.machine.items() if value not in (None, ''))
        return '\n'.join(
            [f'# {self.name}', '', *rows, '', f'`{self.command}`', '', f'Settings: {settings}.', '', f'{machine}.', '']
        )

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write ``NAME.json`` and ``NAME.md``.

        Args:
            folder (str | Path): Where to; made if it is not there.

        Returns:
            tuple[Path, Path]: The two files.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = asdict(self)
        for entry, figure in zip(content['figures'], self.figures, strict=True):
            entry.update(median=figure.median, low=figure.low, high=figure.high, met=figure.met)
        files = folder / f'{self.name}.json', folder / f'{self.name}.md'
        files[0].write_text(json.dumps(content, indent=1) + '\n')
        files[1].write_text(self.markdown())
        return files


def _digits(value: float) -> str:
    """Four significant digits; whole numbers from 1000."""
    return f'{value:.0f}' if abs(value) >= 1000 else f'{value:.4g}'
