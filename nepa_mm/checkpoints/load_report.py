"""What a load did, in words."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class LoadReport:
    """What a load did, by parameter name. ``str(report)`` is the text that is logged.

    Args:
        source (str): Where the weights came from.
        matched (list[str]): Loaded.
        filled (list[str]): Absent QK-norm weights, set to one, which is what plain QK-norm computes.
        resampled (list[str]): Patch embeddings of another patch size, loaded resampled.
        missing (list[str]): In the model, not in the checkpoint: left as they were.
        unexpected (list[str]): In the checkpoint, not in the model: not used.
        reshaped (list[str]): In both, with different shapes: left as they were.
        altered (list[str]): Settings that the weights do not show and that the checkpoint's run had otherwise.
    """

    source: str
    matched: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f'Loaded {len(self.matched)} tensors from {self.source}.']
        for names, what in (
            (self.filled, 'QK-norm weights are not in the checkpoint (plain QK-norm) and were set to 1'),
            (self.resampled, 'had another patch size and were resampled'),
            (self.missing, 'are not in the checkpoint and keep their initial values'),
            (self.reshaped, 'have another shape in the checkpoint and keep their initial values'),
            (self.unexpected, 'of the checkpoint have no place in the model and were not used'),
        ):
            if names:
                lines.append(f'  {len(names)} {what}: {shorten(names)}')
        if self.altered:
            lines.append(f'  The backbone differs from the one that made them: {"; ".join(self.altered)}')
        return '\n'.join(lines)


def shorten(names: Sequence[str], limit: int = 8) -> str:
    """The first of many names, and how many follow."""
    return ', '.join(names[:limit]) + (f', ... ({len(names) - limit} more)' if len(names) > limit else '')
