"""Annotation files of the hosts' data sets, read without running what is in them."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import yaml
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import PickleHandler, YamlHandler

from ..numpy_pickles import UnsupportedNumpyError, restored, stand_ins
from .errors import DataError

# What lists of annotations are made of: plain containers and numbers, which build without calling anything of the
# file's choice, and numpy's arrays of numbers and strings.
_BUILTINS = (set, frozenset, bytearray, complex, slice, range)
_ALLOWED: dict[tuple[str, str], Any] = {
    ('collections', 'OrderedDict'): OrderedDict,
    **{(module, kind.__name__): kind for module in ('builtins', '__builtin__') for kind in _BUILTINS},
    **{(module, name): stand_in for module, name, stand_in in stand_ins()},
}


class UnsafeDataFileError(DataError):
    """A data file would run code, or build objects that data are not made of."""


class _PlainUnpickler(pickle.Unpickler):
    numpy = False  # whether there is anything of numpy's in the file

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            self.numpy |= module.startswith('numpy')
            return _ALLOWED[module, name]
        raise _unsafe(f'calls {module}.{name}')


def _unsafe(what: str) -> UnsafeDataFileError:
    return UnsafeDataFileError(
        f'a .pkl file (ann_file of a data set?) {what}; reading that could run code. Annotations are lists, dicts, '
        'strings, numbers and numpy arrays of strings and numbers: write them as JSON.'
    )


class PlainPickleHandler(PickleHandler):
    """mmengine's reader of ``.pkl`` files, for plain data only; writing is as it was.

    ``pickle.load`` runs whatever a file asks for.
    """

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Read a file.

        Args:
            file: A binary stream.
            **kwargs: Arguments of ``pickle.Unpickler``.

        Raises:
            UnsafeDataFileError: It holds anything but containers, strings, numbers and numpy arrays of those two.
        """
        try:
            unpickler = _PlainUnpickler(file, **kwargs)
            data = unpickler.load()
            return restored(data) if unpickler.numpy else data
        except UnsupportedNumpyError as error:
            raise _unsafe(f'holds what numpy should not build: {error}') from error


class PlainYamlHandler(YamlHandler):
    """mmengine's reader of ``.yaml`` files, for plain data only; writing is as it was.

    Its own takes yaml's full loader, which builds the objects and calls the functions that a file names.
    """

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Read a file.

        Args:
            file: A text stream.
            **kwargs: Arguments of ``yaml.load``, but for its loader.

        Raises:
            UnsafeDataFileError: It holds tags of Python objects.
        """
        kwargs['Loader'] = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
        try:
            return yaml.load(file, **kwargs)
        except yaml.constructor.ConstructorError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else '?'
            raise UnsafeDataFileError(
                'a YAML file (ann_file of a data set?) asks for Python objects, which could run code '
                f'({error.problem}, line {line}); write plain lists and mappings.'
            ) from error


def guard_data_files() -> None:
    """Have ``mmengine.load`` read ``.pkl`` and ``.yaml`` files as plain data, in this process.

    The hosts' data sets read their ``ann_file`` with it, whichever ending it has.
    """
    register_handler(['pkl', 'pickle'])(PlainPickleHandler)
    register_handler(['yaml', 'yml'])(PlainYamlHandler)
