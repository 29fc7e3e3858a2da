"""From samples to findings: what was seen in a loader, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..preparation import iter_parallel
from .configs import LOADERS, Part, read_parts
from .samples import Sample, check_sample


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or worth a look.

    Args:
        text: What was seen, and what it means for training.
        change: What to change, and where.
        error: Whether it spoils a training run; False for what may be meant so. Defaults to True.
    """

    text: str
    change: str
    error: bool = True


@dataclass
class Loader:
    """What was seen in the data sets of one loader.

    Args:
        name: 'train_dataloader', 'val_dataloader' or 'test_dataloader'.
        parts: Its data sets.
        samples: How many samples were looked at.
        kinds: Kind of problem to the number of samples that have it.
        problems: File and what is wrong with it.
        counts: Pixels per stored label value, (256,).
        classes_seen: Pixels, or images, per class, (classes,).
        colors: Colours of colour-coded masks.
        all_ignored: Samples without a pixel of any class.
        paths: Files of the images.
    """

    name: str
    parts: list[Part]
    samples: int = 0
    kinds: Counter = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    classes_seen: Counter = field(default_factory=Counter)
    colors: set[tuple[int, ...]] = field(default_factory=set)
    all_ignored: int = 0
    paths: set[str] = field(default_factory=set)

    def add(self, part: Part, sample: Sample) -> None:
        """Count a sample of one of the parts."""
        self.samples += 1
        self.paths.add(sample.path)
        self.kinds.update(sample.kinds)
        self.problems += sample.problems
        self.colors |= sample.colors
        self.all_ignored += sample.all_ignored
        if sample.counts is not None and part.rule is not None:
            self.counts += sample.counts
            for value in np.flatnonzero(sample.counts).tolist():
                role = int(part.rule.roles[value])
                if role >= 0:
                    self.classes_seen[role] += int(sample.counts[value])
        if sample.gt_label is not None:
            self.classes_seen[int(sample.gt_label)] += 1


def verify(cfg: Mapping, loaders: Sequence[str] = LOADERS, nproc: int = 1) -> list[Loader]:
    """Look at every sample of a config's data sets.

    Args:
        cfg: The config.
        loaders: Which of its loaders. One that repeats an earlier one (mmseg's configs test on val) is left out.
        nproc: Number of processes.

    Returns:
        What was seen, per loader.
    """
    seen: list[Loader] = []
    configs: list = []
    for name in loaders:
        config = (cfg.get(name) or {}).get('dataset')
        if config is None or config in configs:
            continue
        configs.append(config)
        loader = Loader(name, read_parts(cfg, name))
        for part in loader.parts:
            if part.dataset is None:
                continue
            count = len(part.dataset)
            for sample in iter_parallel(check_sample, (part.dataset, part.rule), range(count), nproc, part.key):
                loader.add(part, sample)
        seen.append(loader)
    return seen


def print_report(
    loaders: Sequence[Loader], findings: Mapping[str, Sequence[Finding]], out: Path, strict: bool = False
) -> int:
    """Print what was found, and write the list of bad files.

    Args:
        loaders: From :func:`verify`.
        findings: From :func:`conclude`.
        out: File of the list: a path, a tab and what is wrong, per line; empty if nothing is.
        strict: Whether what is only worth a look counts as wrong. Defaults to False.

    Returns:
        Exit status: 1 if something is wrong.
    """
    for loader in loaders:
        print(f'{loader.name}: {loader.samples:,} samples, {len({path for path, _ in loader.problems}):,} bad files')
        _print_findings(findings[loader.name])
    if findings['model']:
        print('model:')
        _print_findings(findings['model'])
    lines = [f'{path}\t{text}' for loader in loaders for path, text in loader.problems]
    out.parent.mkdir(parents=True, exist_ok=True)
    # A name that is not UTF-8 stands as it is on disk.
    text = ''.join(f'{line}\n' for line in dict.fromkeys(lines))
    out.write_text(text, encoding='utf-8', errors='surrogateescape')
    if lines:
        print(f'bad files: {out}')
    everything = [finding for found in findings.values() for finding in found]
    errors = sum(finding.error for finding in everything)
    print(f'{errors} wrong, {len(everything) - errors} worth a look')
    return int(bool(errors or lines or (strict and everything)))


def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        print(f'  {"WRONG" if finding.error else "look "}  {finding.text}')
        print(f'         change: {finding.change}')
