"""What is wrong with a file of a data set: errors that name it, also when they come out of a data worker."""

from collections.abc import Mapping


class DataError(ValueError):
    """Something is wrong with the data; the message names the file and says what to do.

    A data worker hands its exceptions over as text inside a traceback, and torch builds them anew from that one string:
    ``str`` gives the message alone in both cases.
    """

    def __str__(self) -> str:
        return super().__str__().rpartition(f'{type(self).__name__}: ')[2].rstrip()


class UnreadableImage(DataError):  # noqa: N818  a state of the file, as zipfile's BadZipFile
    """An image cannot be read.

    Args:
        source: Its path.
        reason: Why.
    """

    def __init__(self, source: str, reason: str = '') -> None:
        self.source, self.reason = source, reason
        super().__init__(f'image {source!r} cannot be read: {reason}' if reason else source)

    def __reduce__(self) -> tuple:
        return type(self), (self.source, self.reason)


class LabelError(DataError):
    """A label map, or a class, does not fit its image or the model; says how to find all such files.

    Args:
        text: What is wrong, with the name of the file.
    """

    HINT = '; tools/misc/verify_dataset.py CONFIG lists all such files'

    def __init__(self, text: str) -> None:
        super().__init__(text if self.HINT in text else text + self.HINT)


class TooManyBadImagesError(DataError):
    """So many images cannot be read that a run stops.

    Args:
        text: What is wrong.
    """

    @classmethod
    def of(cls, bad: Mapping[str, str], total: int, max_share: float, file: str) -> 'TooManyBadImagesError':
        """The error for these images.

        Args:
            bad: Path to reason.
            total: Number of images in the data set.
            max_share: The share that the run bears.
            file: Where the list is written.

        Returns:
            The error; it names the first ten.
        """
        lines = [f'  {path}: {reason}' for path, reason in list(bad.items())[:10]]
        lines += [f'  and {len(bad) - 10:,} more'] * (len(bad) > 10)
        return cls(
            f'{len(bad):,} of {total:,} training images cannot be read, more than '
            f'default_hooks.bad_data.max_bad_share={max_share:g} allows; mend or remove them, or allow more. '
            f'The list is in {file}:\n' + '\n'.join(lines)
        )
