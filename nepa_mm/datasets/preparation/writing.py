"""Writing a folder all or nothing, and doing many files at once."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from .sources import PreparationError, SourceFile

# Files handed to a worker at a time; fewer than this are not worth one.
CHUNK = 16

Shared = TypeVar('Shared')
Item = TypeVar('Item')
Result = TypeVar('Result')


@contextmanager
def new_folder(dst: str | os.PathLike | None) -> Iterator[tuple[Path | None, Path]]:
    """Fill a folder that appears in one step at the end of the block, and not at all if that raises.

    Args:
        dst: The folder, new or empty; None writes nothing.

    Yields:
        The folder to fill (None if ``dst`` is None), and another one for temporary files.

    Raises:
        FileExistsError: If ``dst`` holds something.
    """
    if dst is None:
        with tempfile.TemporaryDirectory(prefix='nepa_mm-') as scratch:
            yield None, Path(scratch)
        return
    # A link to an empty folder on another disk stays what it is, and that folder is filled.
    dst = Path(os.path.realpath(dst))
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise FileExistsError(
            f'{dst} exists and is not empty; give a new folder or remove it (--check looks at what is there)'
        )
    made = [folder for folder in dst.parents if not folder.exists()]
    dst.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, so that the last step is a rename on one file system.
    scratch_folder = Path(tempfile.mkdtemp(prefix=f'.{dst.name}-', dir=dst.parent))
    try:
        new = scratch_folder / 'new'
        new.mkdir()
        yield new, scratch_folder
        if dst.exists():
            dst.rmdir()
        new.rename(dst)
    finally:
        shutil.rmtree(scratch_folder, ignore_errors=True)
        with suppress(OSError):  # they hold dst, if all went well
            for folder in made:
                folder.rmdir()


def check_space(files: Iterable[SourceFile], new: Path | None, link: bool) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        files: What will be copied.
        new: Where to; None copies nothing.
        link: Whether files on disk are linked instead.

    Raises:
        PreparationError: If the disk has less room than they take.
    """
    if new is None:
        return
    needed = sum(file.size() for file in files if not (link and file.linkable))
    free = shutil.disk_usage(new).free
    if needed > free:
        raise PreparationError(
            f'{new.parent.parent}: {free / 2**30:.1f} GiB free, but the data set takes {needed / 2**30:.1f} GiB'
            + ('' if link else '; --link links to files on disk instead of copying them')
        )


def iter_parallel(
    function: Callable[[Shared, Item], Result], shared: Shared, items: Sequence[Item], nproc: int, text: str
) -> Iterator[Result]:
    """Apply a function to many items in several processes, with a progress bar where someone watches.

    Args:
        function: Picklable, and independent of order.
        shared: Its first argument, the same for all; handed to a process once.
        items: Its second argument, one at a time.
        nproc: Most processes; a few items take one.
        text: What stands before the bar.

    Yields:
        The results, in the order of the items.
    """
    workers = min(nproc, len(items) // CHUNK)
    with tqdm(total=len(items), desc=text, disable=None) as bar:
        if workers <= 1:
            for item in items:
                yield function(shared, item)
                bar.update()
        else:
            with ProcessPoolExecutor(workers, initializer=_share, initargs=(shared,)) as pool:
                for result in pool.map(partial(_with_shared, function), items, chunksize=CHUNK):
                    yield result
                    bar.update()


def run_parallel(function: Callable[[Item], Result], items: Sequence[Item], nproc: int, text: str) -> list[Result]:
    """Apply a function of one argument to many items; see :func:`iter_parallel`."""
    return list(iter_parallel(_without_shared, function, items, nproc, text))


# What this worker process shares with the others.
_shared: Any = None


def _share(value: Any) -> None:
    global _shared
    _shared = value


def _with_shared(function: Callable[[Any, Item], Result], item: Item) -> Result:
    return function(_shared, item)


def _without_shared(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)
