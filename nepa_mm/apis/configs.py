"""Finding a config by its path or by its name."""

from __future__ import annotations

import difflib
import fnmatch
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


class ConfigNotFoundError(FileNotFoundError):
    """There is no config of this path or name; the message proposes close ones."""


def configs_folder() -> Path:
    """The folder of this package's configs: of the installed package, or of the source tree it runs from.

    Raises:
        ConfigNotFoundError: Neither exists.
    """
    folders = (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs')
    for folder in folders:
        if folder.is_dir():
            return folder.resolve()
    raise ConfigNotFoundError(f'this installation of nepa_mm has no configs (looked for {folders[0]} and {folders[1]})')


def config_files(folder: str | Path | None = None) -> dict[str, Path]:
    """The configs one can train, by name.

    Args:
        folder (str or Path, optional): Where to look. Defaults to :func:`configs_folder`.

    Returns:
        dict[str, Path]: File name without ``.py`` to the file, sorted; what lies in ``_base_`` is left out.
    """
    root = configs_folder() if folder is None else Path(folder)
    files = sorted(root.rglob('*.py'), key=lambda p: p.stem)
    return {p.stem: p for p in files if '_base_' not in p.relative_to(root).parts}


def list_models(pattern: str | None = None) -> list[str]:
    """Names that :func:`nepa_mm.get_model` takes.

    Args:
        pattern (str, optional): A wildcard pattern; as in mmpretrain's ``list_models``, whatever follows matches.
            Defaults to None: all.

    Returns:
        list[str]: Names of the configs of this package, sorted.
    """
    names = config_files()
    return sorted(names if pattern is None else fnmatch.filter(names, f'{pattern}*'))


def find_config(name: str | Path, folder: str | Path | None = None) -> Path:
    """Find a config file.

    Args:
        name (str or Path): A path, or the name of one of this package's configs (:func:`list_models`).
        folder (str or Path, optional): Folder of the configs that have names. Defaults to :func:`configs_folder`.

    Returns:
        Path: The file.

    Raises:
        ConfigNotFoundError: There is none; the message names close ones.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    root = configs_folder() if folder is None else Path(folder)
    known = config_files(root)
    if str(name) in known:
        return known[str(name)]
    stem = Path(name).name.removesuffix('.py')
    close = difflib.get_close_matches(stem, known, n=3, cutoff=0.5)
    hint = ''.join(f'\n  {os.path.relpath(known[c])}' for c in close)
    raise ConfigNotFoundError(
        f'config {str(name)!r} does not exist' + (f'; did you mean{hint}' if hint else f'; the configs lie in {root}')
    )
