"""Which checkpoint a run goes on from: the last one that is whole."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from pathlib import Path

from mmengine.logging import print_log

from .reader import read_file
from .sources import CheckpointError

NOTE = 'last_checkpoint'
DAMAGED = '.damaged'


def damage(file: str | Path) -> str | None:
    """Look for what is wrong with a checkpoint file, without keeping its content in memory.

    Args:
        file (str | Path): A ``.pth`` file.

    Returns:
        str or None: What is wrong, or None where every byte is as it was written.
    """
    file = Path(file)
    try:
        with file.open('rb') as stream:
            is_archive = stream.read(2) == b'PK'
        if not is_archive:  # cut to nothing, or of an old torch: only reading it tells
            read_file(file)
            return None
        # torch stores every tensor with its CRC-32; the list of contents stands at the end and is lost by a cut
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
        return bad and f'the checksum of its part {bad} is wrong'
    except (zipfile.BadZipFile, EOFError) as error:
        return f'cut short ({error})'
    except (CheckpointError, OSError) as error:
        return str(error)


def last_whole(folder: str | Path) -> Path | None:
    """Find the last checkpoint of a work directory that is whole, and set damaged ones aside.

    First comes what ``last_checkpoint`` names, then the others from the newest on. A damaged file gets the ending
    ``.damaged``, and a warning says which one, why, and what is taken instead. Where several processes share the
    folder, one of them may do this.

    Args:
        folder (str | Path): Work directory of a run.

    Returns:
        Path or None: The checkpoint; None where the folder has none at all.

    Raises:
        CheckpointError: There are checkpoints, but every one is damaged.
    """
    folder = Path(folder)
    named = _named(folder)
    candidates = _newest_first(folder if named is None else named.parent)
    aside: list[str] = []
    if named is not None and named.is_file():
        candidates = [named, *(file for file in candidates if file != named)]
    elif named is not None:
        aside.append(f'{named} (named by {folder / NOTE}) does not exist')
    for file in candidates:
        reason = damage(file)
        if reason is None:
            for text in aside:
                print_log(f'Checkpoint {text}; taking {file} instead.', logger='current', level=logging.WARNING)
            return file
        kept = file.with_name(file.name + DAMAGED)
        os.replace(file, kept)
        aside.append(f'{file} is damaged: {reason}; it is kept as {kept.name}')
    if aside:
        raise CheckpointError(
            f'No checkpoint in {folder} can be resumed from: {"; ".join(aside)}. Name a whole one by --resume '
            'CHECKPOINT, or begin anew in another --work-dir.'
        )
    return None


def _named(folder: Path) -> Path | None:
    """The file that a work directory's note names: by its absolute path, or by its name where the folder has moved."""
    note = folder / NOTE
    text = note.read_text().strip() if note.is_file() else ''
    if not text:
        return None
    file = Path(text)
    return file if file.is_file() or file.parent.is_dir() else folder / file.name


def _newest_first(folder: Path) -> list[Path]:
    """Checkpoints that a run can go on from, by the number of epochs or iterations in their names."""
    numbered = []
    for file in folder.glob('*.pth'):
        number = re.search(r'_(\d+)$', file.stem)
        if number and not file.name.startswith('best_'):  # those hold weights only
            numbered.append((int(number[1]), file.stat().st_mtime_ns, file))
    return [file for *_, file in sorted(numbered, reverse=True)]
