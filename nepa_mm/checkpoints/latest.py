"""Which checkpoint a run goes on from: the last one that is whole."""

from __future__ import annotations

import logging
import os
import pickle
import re
import zipfile
from pathlib import Path

import torch
from mmengine.logging import print_log

from .reader import only_safe_globals, read_file
from .sources import CheckpointError

NOTE = 'last_checkpoint'
DAMAGED = '.damaged'

_Place = tuple[str, int, int]


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
        if bad:
            return f'the checksum of its part {bad} is wrong'
        # That list itself has no checksum, and torch reads it more strictly; with mmap the tensors stay on the disk.
        with only_safe_globals():
            torch.load(file, mmap=True, map_location='cpu', weights_only=True)
        return None
    except pickle.UnpicklingError:
        return None  # as it was written, to judge by its checksums, and not to be read: that is for the loader to say
    except (zipfile.BadZipFile, EOFError) as error:
        return f'cut short ({error})'
    except Exception as error:  # a damaged file can lead its readers anywhere
        return (str(error).strip() or type(error).__name__).splitlines()[0]


def last_whole(folder: str | Path) -> Path | None:
    """Find the last checkpoint of a work directory that is whole, and set damaged ones aside.

    First comes the file that ``last_checkpoint`` names, from this folder if it is here and otherwise from where the
    note says; then those before it, from the newest on. Those with a higher number come last, since they may be of an
    earlier run in the same folder, which the log then says. A damaged file gets the ending ``.damaged``, and a warning
    says which one, why, and what is taken instead. In the work directory of another run, such as the one that this
    folder was copied from, nothing is renamed, and nothing taken but the very file that the note names.

    Where several processes share the folder, one of them may do this.

    Args:
        folder (str | Path): Work directory of a run.

    Returns:
        Path or None: The checkpoint; None where the folder has none at all.

    Raises:
        CheckpointError: There are checkpoints, but every one is damaged.
    """
    folder = Path(folder)
    noted = _noted(folder)
    own = [folder]
    aside: list[str] = []
    if noted is None:
        candidates, doubtful = _in_order(own, None), []
    else:
        if _holds_checkpoints_of(folder, noted.parent):
            own.append(noted.parent)
        named = next((file for file in (folder / noted.name, noted) if file.is_file()), None)
        if named is None:
            aside.append(f'{noted} (named by {folder / NOTE}) does not exist')
        others = [file for file in _in_order(own, noted) if file != named]
        doubtful = [file for file in others if not _is_before(file, noted)]
        candidates = others if named is None else [named, *others]
    for file in candidates:
        reason = damage(file)
        if reason is None:
            for text in aside:
                _warn(f'Checkpoint {text}; taking {file} instead.')
            if file in doubtful:
                _warn(
                    f'{file} is not before {noted}, which {folder / NOTE} names, and none before it is whole: it may '
                    'be of an earlier run in this folder. If so, begin anew in another --work-dir.'
                )
            if file.parent not in own:
                _warn(f'{file}, which {folder / NOTE} names, lies in the folder of another run.')
            return file
        aside.append(f'{file} is damaged: {reason}; {_set_aside(file, own)}')
    if aside:
        raise CheckpointError(
            f'No checkpoint in {folder} can be resumed from: {"; ".join(aside)}. Name a whole one by --resume '
            'CHECKPOINT, or begin anew in another --work-dir.'
        )
    return None


def _noted(folder: Path) -> Path | None:
    """The file that a work directory's note names."""
    note = folder / NOTE
    text = note.read_text(errors='replace').strip() if note.is_file() else ''
    return Path(text) if text else None


def _holds_checkpoints_of(folder: Path, other: Path) -> bool:
    """Whether another folder is the one that a checkpoint hook's ``out_dir`` has made for a work directory.

    It has the same name and, other than the work directory of another run, no note.
    """
    same_name = other.name == os.path.basename(os.path.abspath(folder))
    return same_name and other.is_dir() and not (other / NOTE).exists() and not other.samefile(folder)


def _place(file: Path) -> _Place | None:
    """What a checkpoint's name says of its place in a run: what is counted, how many, and iterations beyond an epoch.

    The last is in the name of a run by epochs that was stopped inside one: ``epoch_1_iter_300.pth``.
    """
    parts = re.fullmatch(r'(.*?)_(\d+)(?:_iter_(\d+))?', file.stem)
    return parts and (parts[1], int(parts[2]), int(parts[3] or 0))


def _is_before(file: Path, noted: Path) -> bool:
    """Whether a checkpoint can be one that the same run wrote before another."""
    one, other = _place(file), _place(noted)
    return one is None or other is None or (one[0] == other[0] and one <= other)


def _in_order(folders: list[Path], noted: Path | None) -> list[Path]:
    """Checkpoints that a run can go on from: the newest first, by their names, but those after the noted one last."""
    placed = []
    for file in (file for folder in folders for file in folder.glob('*.pth')):
        place = _place(file)
        if place and file.is_file() and not file.name.startswith('best_'):  # those hold weights only
            placed.append((place[1:], file.stat().st_mtime_ns, file))
    newest_first = [file for *_, file in sorted(placed, reverse=True)]
    if noted is None:
        return newest_first
    # Of those after it the next is the likeliest to be of this run, which was then killed before it wrote its note.
    after = [file for file in newest_first[::-1] if not _is_before(file, noted)]
    return [file for file in newest_first if _is_before(file, noted)] + after


def _set_aside(file: Path, own: list[Path]) -> str:
    """Rename a damaged file, if it is the run's own, and tell what has become of it."""
    if file.parent not in own:
        return 'it is left as it is, in the folder of another run'
    kept = file.with_name(file.name + DAMAGED)
    try:
        os.replace(file, kept)
    except OSError as error:  # a folder that may only be read
        return f'it cannot be renamed ({error})'
    return f'it is kept as {kept.name}'


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
