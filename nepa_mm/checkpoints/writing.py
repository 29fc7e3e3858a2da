"""Files that are either whole or not there: written beside their place, flushed, and renamed into it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from mmengine.fileio import LocalBackend, register_backend

# End of the name of a file that is being written; one that a killed run has left behind is of no use to anyone.
UNFINISHED = '.writing'
REPLACING = 'nepa_mm.replacing'


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its place only when it is complete and on the disk.

    Until then the file that stood there before stays, whatever happens: an exception, a kill, a power cut.

    Args:
        path (str | Path): The file; its folder is made if need be.

    Yields:
        BinaryIO: The stream to write to.

    Raises:
        OSError: The disk is full, a quota is used up, or the folder cannot be written to. Half a file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with open(unfinished, 'wb') as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the error to tell is the first
            unfinished.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Put a rename on the disk, too, where the file system can be asked to."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Save a checkpoint as a ``.pth`` that is either whole or not there.

    Args:
        checkpoint (dict[str, Any]): What ``torch.save`` takes.
        path (str | Path): The file.

    Raises:
        OSError: As in :func:`replacing`.
    """
    # First in memory: torch's own writer ends the process when a stream refuses bytes half-way.
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with replacing(path) as stream:
        stream.write(buffer.getbuffer())


def write_text(text: str, path: str | Path) -> None:
    """Write a small text file that is either whole or not there.

    Args:
        text (str): The text.
        path (str | Path): The file.

    Raises:
        OSError: As in :func:`replacing`.
    """
    with replacing(path) as stream:
        stream.write(text.encode())


def remove_unfinished(folder: str | Path) -> list[Path]:
    """Remove what runs that were killed while writing have left in a folder.

    Args:
        folder (str | Path): The folder; subfolders are not looked into.

    Returns:
        list[Path]: The files removed.
    """
    found = sorted(Path(folder).glob(f'*{UNFINISHED}'))
    for file in found:
        file.unlink(missing_ok=True)
    return found


class ReplacingBackend(LocalBackend):
    """mmengine's backend for local files, whose ``put`` leaves either the old file or the whole new one.

    A runner's checkpoints go through it: ``backend_args=dict(backend=REPLACING)``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file.

        Args:
            obj (bytes): The content.
            filepath (str | Path): The file.

        Raises:
            OSError: As in :func:`replacing`.
        """
        with replacing(filepath) as stream:
            stream.write(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file.

        Args:
            obj (str): The content.
            filepath (str | Path): The file.
            encoding (str): Its encoding. Defaults to 'utf-8'.

        Raises:
            OSError: As in :func:`replacing`.
        """
        self.put(obj.encode(encoding), filepath)


register_backend(REPLACING, ReplacingBackend)
