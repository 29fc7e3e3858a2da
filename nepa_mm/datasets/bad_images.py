"""The list of images that could not be read, which all processes of a run write together."""

import json
import logging
import os
from pathlib import Path

from mmengine.logging import print_log

from .errors import TooManyBadImagesError, UnreadableImage


class BadImages:
    """Images of a training set that cannot be read, each once.

    The data workers of a process append to one file, so nothing is lost when any of them is killed, and who resumes the
    run goes on with its list.

    Args:
        file: Where to: one JSON list ``[path, reason]`` per line.
        max_share: Part of the images that may be bad before :meth:`add` raises.
        total: Number of images in the data set; a :class:`nepa_mm.datasets.CheckedDataset` sets it. Defaults to 0.
    """

    def __init__(self, file: str | os.PathLike, max_share: float, total: int = 0) -> None:
        self.file, self.max_share, self.total = Path(file), max_share, total
        self.known: dict[str, str] = {}
        self._offset = 0

    def __deepcopy__(self, memo: dict) -> 'BadImages':
        """Itself: there is one list, however often the config of the data set that writes it is copied."""
        return self

    def add(self, error: UnreadableImage) -> None:
        """Note an image.

        Args:
            error: What reading it raised.

        Raises:
            TooManyBadImagesError: More images than ``max_share`` of all are bad.
        """
        self.read()  # what other workers found
        if error.source not in self.known:
            self.known[error.source] = error.reason
            self._append(error)
        self.check()

    def read(self) -> dict[str, str]:
        """Read what has been written since the last time.

        Returns:
            Path to reason, of all that are known.
        """
        try:
            with open(self.file, 'rb') as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return self.known
        whole = data.rfind(b'\n') + 1
        self._offset += whole
        self.known |= parse(data[:whole])
        return self.known

    def check(self, file: Path | None = None) -> None:
        """Raise if there are too many.

        Args:
            file: The list that the message names. Defaults to None: this one.

        Raises:
            TooManyBadImagesError: More images than ``max_share`` of all are bad.
        """
        if len(self.known) > self.max_share * self.total:
            raise TooManyBadImagesError.of(self.known, self.total, self.max_share, str(file or self.file))

    def _append(self, error: UnreadableImage) -> None:
        # The line break before it ends what a full disk may have cut short; one write, so that workers do not mix.
        line = f'\n{json.dumps([error.source, error.reason], ensure_ascii=False)}\n'.encode(errors='surrogateescape')
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            stream = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(stream, line)
            finally:
                os.close(stream)
        except OSError as reason:
            print_log(f'{error}; not noted in {self.file}: {reason}', logger='current', level=logging.WARNING)


def parse(data: bytes) -> dict[str, str]:
    """Read the lines of such a file.

    Args:
        data: What is in it, or a part of it.

    Returns:
        Path to reason; lines cut short by a full disk are left out.
    """
    found = {}
    for line in data.decode(errors='surrogateescape').split('\n'):
        try:
            path, reason = json.loads(line)
        except ValueError:
            continue
        found[path] = reason
    return found
