"""Reading of checkpoint files without running what is in them."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from ..numpy_pickles import restored, stand_ins
from .sources import RELEASE_WEIGHTS, CheckpointError, fetch, is_web_page


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Args:
        path (str | Path): What :func:`nepa_mm.checkpoints.fetch` finds: a ``.pth`` of mmengine or a bare state dict
            (read with ``weights_only=True``; mmengine's own records of a run are allowed beside tensors), a
            ``.safetensors`` file, a directory in the release's format (its ``model.safetensors`` is read),
            ``hf://OWNER/NAME[@REVISION]``, or the URL of a file.
        map_location: As in ``torch.load``; safetensors are read on the CPU. Defaults to 'cpu'.

    Returns:
        dict[str, Any]: ``state_dict`` and, for a run's checkpoint, what stands beside it (``meta``, ``optimizer``,
        ``message_hub``, ...). A bare state dict comes back under ``state_dict``.

    Raises:
        CheckpointError: The path is empty or missing, or cannot be fetched; the file is empty, damaged, a web page, or
        holds objects that would run code; or it holds no weights.
    """
    checkpoint, file = read_file(path, map_location)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'Checkpoint {file} holds a {type(checkpoint).__name__}; expected a dict of weights.')
    if 'state_dict' not in checkpoint:
        # Others' names for the same thing: DINO, timm, MAE save under 'model'.
        weights = checkpoint.get('model', checkpoint)
        checkpoint = dict(state_dict=weights)
    weights = checkpoint['state_dict']
    if not isinstance(weights, dict) or not any(isinstance(v, torch.Tensor) for v in weights.values()):
        raise CheckpointError(f'Checkpoint {file} holds no weights (no tensors under its keys).')
    return checkpoint


def read_file(path: str | Path, map_location: Any = 'cpu') -> tuple[Any, Path]:
    """Read what a checkpoint file holds, whatever it is; nothing in it is executed.

    Args:
        path (str | Path): As in :func:`read_checkpoint`.
        map_location: As there.

    Returns:
        tuple[Any, Path]: The content, and the local file that it came from.

    Raises:
        CheckpointError: As there, but for what the file holds.
    """
    file = fetch(path)
    if file.is_dir():
        if not (file / RELEASE_WEIGHTS).is_file():
            raise CheckpointError(
                f'{file} is a directory without {RELEASE_WEIGHTS}; name a file, or a release directory.'
            )
        file = file / RELEASE_WEIGHTS
    if not file.is_file():
        raise CheckpointError(f'Checkpoint {path} does not exist (looked for {file.absolute()}).')
    with file.open('rb') as stream:
        head = stream.read(512)
    if not head:
        raise CheckpointError(f'Checkpoint {file} is empty (0 bytes); copy or download it again.')
    if is_web_page(head):
        raise CheckpointError(f'Checkpoint {file} is a web page or XML, not weights; download the file itself.')
    if head.startswith(b'version https://git-lfs'):
        raise CheckpointError(
            f'Checkpoint {file} is a pointer of Git LFS, not weights; run "git lfs pull" in its repository, or '
            'download the file itself.'
        )
    return (_read_safetensors(file) if head[8:9] == b'{' else _read_torch(file, map_location)), file


def _read_safetensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)  # on the CPU; loading into a module moves them
    except SafetensorError as error:
        raise _damaged(file, error) from error


class _History(HistoryBuffer):
    """What a pickle fills in the place of mmengine's HistoryBuffer, and what becomes one when it is filled.

    mmengine's own takes any attributes from the pickle, and statistics for all histories of the process.
    """

    def __init__(self, *_: Any) -> None:
        raise pickle.UnpicklingError('Unsupported call of HistoryBuffer')

    def __setstate__(self, state: Any) -> None:
        try:
            values, counts, length = (state[name] for name in ('_log_history', '_count_history', 'max_length'))
        except (TypeError, KeyError) as error:
            raise pickle.UnpicklingError('Unsupported state of HistoryBuffer') from error
        values, counts = restored(values), restored(counts)
        if type(values) is not np.ndarray or type(counts) is not np.ndarray or type(length) is not int:
            raise pickle.UnpicklingError('Unsupported state of HistoryBuffer')
        super().__setstate__(dict(_log_history=values, _count_history=counts, max_length=length))
        self.__class__ = HistoryBuffer


def _history_buffer_method(owner: Any, name: str) -> Any:
    """What stands in for ``getattr`` in a pickle: mmengine's HistoryBuffer names its own statistics that way."""
    if owner is _History and name in ('mean', 'max', 'min', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'Unsupported getattr of {name!r} on {owner!r}')


def _safe_globals() -> list[tuple[Any, str]]:
    """List what mmengine's records of a run may hold beside tensors: no constructor of numpy's or mmengine's."""
    allowed = [(stand_in, f'{module}.{name}') for module, name, stand_in in stand_ins()]
    allowed += [(_history_buffer_method, f'{module}.getattr') for module in ('builtins', '__builtin__')]
    return [*allowed, (_History, f'{HistoryBuffer.__module__}.HistoryBuffer'), (slice, 'builtins.slice')]


@contextmanager
def only_safe_globals() -> Iterator[None]:
    """Allow these; what others allowed in this process under the same names would come before or after, by chance."""
    own, others = _safe_globals(), torch.serialization.get_safe_globals()
    names = {name for _, name in own}
    kept = [
        item
        for item in others
        if (item[1] if isinstance(item, tuple) else f'{item.__module__}.{item.__qualname__}') not in names
    ]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*kept, *own])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _read_torch(file: Path, map_location: Any) -> Any:
    try:
        with only_safe_globals():
            return restored(torch.load(file, map_location=map_location, weights_only=True))
    except pickle.UnpicklingError as error:
        # torch raises the same for 'unsupported global' and 'this is no pickle', and advises to load unsafely; of its
        # text only the line with the reason is of use.
        lines = [line.removeprefix('WeightsUnpickler error:').strip() for line in str(error).splitlines()[1:]]
        reason = next((line for line in lines if line and 'weights_only' not in line), 'not a checkpoint')
        if re.search('unsupported|GLOBAL|unrecognized function', reason, re.IGNORECASE):
            raise CheckpointError(
                f'Checkpoint {file} holds Python objects other than weights; reading those could run code ({reason}). '
                'If you trust where it comes from, re-save its state dict as safetensors with the code that made it.'
            ) from error
        raise _damaged(file, reason) from error
    except Exception as error:  # whatever torch's reader stumbles over in a damaged file
        raise _damaged(file, error) from error


def _damaged(file: Path, reason: object) -> CheckpointError:
    return CheckpointError(f'Checkpoint {file} is damaged or cut short ({reason}); copy or download it again.')
