"""How the demo shows its progress and tells the time left (see ``tools/demo.py``)."""

import shutil
from typing import TextIO

# Shares of a stage that get a line when the output is no terminal.
MARKS = (0.25, 0.5, 0.75)


class Progress:
    """One live line per stage on a terminal; a few lines per stage elsewhere, so that a log file stays readable.

    Args:
        stages: Number of stages.
        out: Where to write.
    """

    def __init__(self, stages: int, out: TextIO) -> None:
        self.stages = stages
        self.out = out
        self.live = out.isatty()
        self.number = 0
        self.title = ''
        self.marks: list[float] = []

    def begin(self, title: str) -> None:
        """Start a stage."""
        self.number += 1
        self.title = title
        self.marks = list(MARKS)
        if self.live:
            self.update(0.0, 'starting', '')

    def update(self, share: float, words: str, left: str) -> None:
        """Show how far the stage is: its share done, a few words and the time left."""
        if self.live:
            filled = round(20 * min(share, 1.0))
            bar = '#' * filled + '-' * (20 - filled)
            self._rewrite(f'{self._head()} [{bar}] {words}{left}')
        elif self.marks and share >= self.marks[0]:
            self.marks = [mark for mark in self.marks if mark > share]
            print(f'{self._head()} {share:4.0%}  {words}{left}', file=self.out, flush=True)

    def end(self, words: str, seconds: float) -> None:
        """Finish a stage: its line stays."""
        line = f'{self._head()} done  {words:<44} {clock(seconds):>6}'
        if self.live:
            self._rewrite(line)
            print(file=self.out, flush=True)
        else:
            print(line, file=self.out, flush=True)

    def interrupt(self) -> None:
        """Leave the live line, for another message."""
        if self.live:
            print(file=self.out, flush=True)

    def _head(self) -> str:
        return f'[{self.number}/{self.stages}] {self.title:<20}'

    def _rewrite(self, line: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self.out.write('\r' + line[:width].ljust(width))
        self.out.flush()


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    seconds = max(0, round(seconds))
    return f'{seconds // 60}:{seconds % 60:02d}'


def time_left(planned: list[float], took: list[float], in_stage: float) -> float:
    """Seconds left of all stages: those of the running one, and later ones scaled by how fast the earlier ones were.

    Args:
        planned: Seconds that each stage takes on the machine that they were measured on.
        took: Seconds that each stage up to the running one takes here, that one included; 0 for a reused stage.
        in_stage: Seconds left in the running stage.
    """
    expected = sum(plan for plan, real in zip(planned, took, strict=False) if real)
    return in_stage + sum(planned[len(took) :]) * sum(took) / expected
