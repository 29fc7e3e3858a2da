"""Annotation files of the hosts' data sets, read without running what is in them."""

from __future__ import annotations

import pickle
from typing import Any

import yaml
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import PickleHandler, YamlHandler

from .errors import DataError

# What lists of annotations are made of: plain containers and numbers, which build without calling anything of the
# file's choice, and numpy's arrays, under their names of numpy 1 and 2.
_NUMPY = ('numpy', 'numpy.core.multiarray', 'numpy._core.multiarray', 'numpy._core.numeric', 'numpy.core.numeric')
_ALLOWED = {
    'builtins': ('set', 'frozenset', 'bytearray', 'complex', 'slice', 'range'),
    'collections': ('OrderedDict',),
    '_codecs': ('encode',),  # how protocol 2 writes bytes
    **dict.fromkeys(_NUMPY, ('ndarray', 'dtype', '_reconstruct', '_frombuffer', 'scalar')),
}
_ALLOWED['__builtin__'] = _ALLOWED['builtins']  # protocol 2, which mmengine writes


class UnsafeDataFileError(DataError):
    """A data file would run code, or build objects that data are not made of."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _ALLOWED.get(module, ()):
            return super().find_class(module, name)
        raise UnsafeDataFileError(
            f'a .pkl file (ann_file of a data set?) calls {module}.{name}; reading that could run code. Annotations '
            'are lists, dicts, strings, numbers and numpy arrays: write them as JSON.'
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
            UnsafeDataFileError: It holds anything but containers, strings, numbers and numpy arrays.
        """
        return _PlainUnpickler(file, **kwargs).load()


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
