"""The rows of a Hugging Face data set on disk, in either of its forms."""

import json
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UnreadableImage
from .files import is_state_of_file, read_file

# Row groups of parquet kept decoded per process: a batch in order touches one or two.
ROW_GROUPS = 2
# What people and the hub call the same split.
ALIASES = {'val': ('val', 'validation', 'valid'), 'validation': ('validation', 'val', 'valid')}


def _datasets() -> Any:
    """The optional library."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            'HuggingFaceImageDataset reads with the library `datasets`, which is not installed: pip install datasets'
        ) from error
    return datasets


class Rows:
    """Rows of a table on disk, opened anew in every process.

    Args:
        name (str): For messages.
        image_key (str): Column of the images.

    Raises:
        ValueError: There is no such column.
    """

    # Column to type, as the library `datasets` has it.
    features: Any

    def __init__(self, name: str, image_key: str) -> None:
        self.name, self.image_key = name, image_key
        self._open()
        if image_key not in self.features:
            raise ValueError(
                f'HuggingFaceImageDataset: {name} has no column {image_key!r}; it has {", ".join(self.features)}. '
                'Name the column of the images: image_key=...'
            )

    def _open(self) -> None:
        """Set ``features`` and what the methods below read from."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def _value(self, row: int) -> Any:
        """What the image column holds in a row."""
        raise NotImplementedError

    def column(self, key: str) -> np.ndarray:
        """A column of numbers, (rows,)."""
        raise NotImplementedError

    def class_names(self, key: str) -> list[str] | None:
        """The names that a column of labels carries, if it carries any."""
        if key not in self.features:
            raise ValueError(
                f'HuggingFaceImageDataset: {self.name} has no column {key!r}; it has {", ".join(self.features)}. Name '
                'the column of the labels (label_key=...), or read without (with_label=False).'
            )
        return getattr(self.features[key], 'names', None)

    def image(self, row: int) -> bytes:
        """The encoded image of a row.

        Raises:
            UnreadableImage: If the row holds none.
        """
        value = self._value(row)
        if isinstance(value, dict):
            # An image that was not embedded when the data set was saved is a path.
            if value.get('bytes') is None and value.get('path'):
                return self._file_beside(value['path'], row)
            value = value.get('bytes')
        if not isinstance(value, bytes) or not value:
            raise UnreadableImage(f'{self.name}[{row}]', f'column {self.image_key!r} holds no image')
        return value

    def _file_beside(self, path: str, row: int) -> bytes:
        try:
            return read_file(path, lambda name: Path(name).read_bytes())
        except OSError as error:
            if not is_state_of_file(error):
                raise
            raise UnreadableImage(f'{self.name}[{row}]', f'{path!r}: {error.strerror or error}') from error

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key not in ('features', '_table', '_cache')}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()


class SavedRows(Rows):
    """What ``save_to_disk`` wrote: memory-mapped, any row at once."""

    def __init__(self, folder: Path, image_key: str) -> None:
        self.folder = folder
        super().__init__(str(folder), image_key)

    def _open(self) -> None:
        datasets = _datasets()
        try:
            table = datasets.load_from_disk(str(self.folder)).with_format(None)
        except Exception as error:  # whatever pyarrow stumbles over in files that are cut, missing or none
            raise ValueError(
                f'HuggingFaceImageDataset: {self.folder} cannot be read as a saved data set ({error!r}); save it again.'
            ) from error
        self.features = table.features
        if isinstance(self.features.get(self.image_key), datasets.Image):
            table = table.cast_column(self.image_key, datasets.Image(decode=False))
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def _value(self, row: int) -> Any:
        return self._table[row][self.image_key]

    def column(self, key: str) -> np.ndarray:
        return self._table.select_columns([key]).with_format('numpy')[:][key]


class ParquetRows(Rows):
    """Parquet files in the order of their names, read by row groups."""

    def __init__(self, files: list[Path], image_key: str) -> None:
        self.files = [str(file) for file in files]
        super().__init__(str(files[0].parent), image_key)

    def _open(self) -> None:
        datasets = _datasets()
        from pyarrow import parquet

        self._table: dict[int, Any] = {}
        self._cache: OrderedDict[tuple[int, int], Any] = OrderedDict()
        if not hasattr(self, 'starts'):
            # (file, row group) and first row of every group; a footer each, read once and pickled along.
            groups, starts, total = [], [], 0
            for number, file in enumerate(self.files):
                metadata = parquet.read_metadata(file)
                for group in range(metadata.num_row_groups):
                    groups.append((number, group))
                    starts.append(total)
                    total += metadata.row_group(group).num_rows
            self.groups, self.starts, self.total = groups, np.array(starts), total
        self.features = datasets.Features.from_arrow_schema(parquet.read_schema(self.files[0]))

    def __len__(self) -> int:
        return self.total

    def _value(self, row: int) -> Any:
        position = int(np.searchsorted(self.starts, row, side='right')) - 1
        key = self.groups[position]
        if key not in self._cache:
            while len(self._cache) >= ROW_GROUPS:
                self._cache.popitem(last=False)
            self._cache[key] = self._file(key[0]).read_row_group(key[1], columns=[self.image_key], use_threads=False)[
                self.image_key
            ]
        self._cache.move_to_end(key)
        return self._cache[key][row - int(self.starts[position])].as_py()

    def _file(self, number: int) -> Any:
        from pyarrow import parquet

        if number not in self._table:
            self._table[number] = parquet.ParquetFile(self.files[number])
        return self._table[number]

    def column(self, key: str) -> np.ndarray:
        from pyarrow import parquet

        return np.concatenate([parquet.read_table(f, columns=[key])[key].to_numpy() for f in self.files])


def open_rows(data_root: str, split: str, image_key: str) -> Rows:
    """Open whichever form a folder holds.

    Args:
        data_root: The folder.
        split: The split, or ''.
        image_key: Column of the images.

    Returns:
        The rows of that split.

    Raises:
        FileNotFoundError: If there is no such folder, no data set in it, or no such split.
    """
    root = Path(data_root)
    who = 'HuggingFaceImageDataset:'
    if not root.is_dir():
        raise FileNotFoundError(f'{who} folder {data_root!r} does not exist; set data_root.')
    names = ALIASES.get(split, (split,))
    if (root / 'dataset_dict.json').is_file():
        splits = json.loads((root / 'dataset_dict.json').read_text())['splits']
        for name in names:
            if name in splits:
                return SavedRows(root / name, image_key)
        raise FileNotFoundError(f'{who} {data_root!r} has no split {split!r}; it has {", ".join(splits)}.')
    if (root / 'state.json').is_file():
        return SavedRows(root, image_key)
    files = sorted(root.rglob('*.parquet'))
    if not files:
        raise FileNotFoundError(
            f'{who} {data_root!r} holds neither a data set saved with save_to_disk (dataset_dict.json or state.json) '
            'nor *.parquet files.'
        )
    if split:
        # The hub's names: data/train-00000-of-00294.parquet, or train/0000.parquet.
        wanted = re.compile(rf'(^|[/._-])({"|".join(map(re.escape, names))})([/._-]|$)')
        chosen = [file for file in files if wanted.search(file.relative_to(root).as_posix())]
        if not chosen:
            some = ', '.join(file.relative_to(root).as_posix() for file in files[:3])
            raise FileNotFoundError(
                f'{who} no parquet file of split {split!r} in {data_root!r}, which holds {some}, ...; '
                "name the split, or take all files with split=''."
            )
        files = chosen
    return ParquetRows(files, image_key)
