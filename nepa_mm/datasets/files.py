"""Reading files from disks and networks that fail now and then."""

import errno
import time
from collections.abc import Callable

# Seconds between attempts.
PAUSES = (0.1, 0.5, 2.0)
_STATES = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
# What a server answers of a file that it does not have or give.
_HTTP_STATES = (401, 403, 404, 410)


def read_file(path: str, get: Callable[[str], bytes]) -> bytes:
    """Read a file, again where the failure may pass: a server that restarts, too many open files.

    Args:
        path: The file.
        get: Reads it.

    Returns:
        Its bytes.

    Raises:
        OSError: It cannot be read, the last time as well; names the file.
    """
    for pause in PAUSES:
        try:
            return get(path)
        except OSError as error:
            if is_state_of_file(error):
                raise
            time.sleep(pause)
    try:
        return get(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a read, unlike opening, does not say of what
            error.filename = path
        raise


def is_state_of_file(error: OSError) -> bool:
    """Tell a file that is not there, or not for us, from a disk, network or process that fails at it.

    Args:
        error: What reading it raised.

    Returns:
        Whether it will be so the next time, too.
    """
    return error.errno in _STATES or getattr(error, 'code', None) in _HTTP_STATES
