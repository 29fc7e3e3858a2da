"""Numpy's arrays and numbers out of pickles, without handing numpy's own constructors to the pickle.

``numpy.ndarray`` takes any memory as objects, ``numpy.dtype`` and ``ndarray.__setstate__`` believe any description of
it: a pickle that may call them makes the process follow pointers of its choice. Here they are stand-ins, which only
note what a pickle says; :func:`restored` makes arrays of it through ``numpy.frombuffer``, which checks, and of nothing
but numbers and strings.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

# Booleans, integers, floats, complex numbers, bytes and strings, as numpy writes them.
_SPEC = re.compile(r'[biufcSU]\d{1,9}')
_ORDERS = {'<': '<', '>': '>', '=': '', '|': ''}
_MODULES = ('numpy.core', 'numpy._core')  # of numpy 1 and 2
_LEAVES = frozenset((str, int, float, bool, bytes, type(None)))


class UnsupportedNumpyError(pickle.UnpicklingError):
    """A pickle asks numpy for something other than numbers and strings."""


class _StandIn:
    """What a pickle may call and fill in only once; not hashable, so that none is hidden in a key."""

    __hash__ = None  # type: ignore[assignment]
    plain: Any = None

    def value(self) -> Any:
        """What it stands for."""
        if self.plain is None:
            raise UnsupportedNumpyError('Unsupported use of an array without content')
        return self.plain


class _Dtype(_StandIn):
    """In the place of ``numpy.dtype``."""

    def __new__(cls, spec: Any = None, *_: Any) -> _Dtype:
        if isinstance(spec, bytes):  # Python 2
            spec = spec.decode('latin1')
        if not isinstance(spec, str) or not _SPEC.fullmatch(spec):
            raise UnsupportedNumpyError(f'Unsupported numpy.dtype({str(spec)[:80]!r})')
        self = super().__new__(cls)
        try:
            self.plain = np.dtype(spec)
        except (TypeError, ValueError) as error:
            raise UnsupportedNumpyError(f'Unsupported numpy.dtype({spec!r})') from error
        return self

    def __setstate__(self, state: Any) -> None:
        # Version, byte order, subarray, names, fields; sizes and flags follow from the kind, and are not believed.
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise UnsupportedNumpyError('Unsupported numpy.dtype with fields')
        order = state[1].decode('latin1') if isinstance(state[1], bytes) else state[1]
        if not isinstance(order, str) or order not in _ORDERS:
            raise UnsupportedNumpyError(f'Unsupported byte order {str(order)[:80]!r} of a numpy.dtype')
        self.plain = np.dtype(_ORDERS[order] + self.plain.str[1:])

    @classmethod
    def scalar(cls, dtype: Any, data: Any = b'', *_: Any) -> np.generic:
        """In the place of ``numpy.core.multiarray.scalar``."""
        return _read(dtype, (1,), data)[0]


class _Array(_StandIn):
    """In the place of ``numpy.ndarray``."""

    def __new__(cls, *_: Any) -> _Array:
        raise UnsupportedNumpyError('Unsupported call of numpy.ndarray')

    @classmethod
    def _empty(cls) -> _Array:
        return super().__new__(cls)

    @classmethod
    def reconstruct(cls, kind: Any = None, *_: Any) -> _Array:
        """In the place of ``numpy.core.multiarray._reconstruct``."""
        if kind is not _Array:
            raise UnsupportedNumpyError('Unsupported kind of numpy.ndarray')
        return cls._empty()

    @classmethod
    def from_buffer(cls, data: Any, dtype: Any, shape: Any, order: Any = 'C') -> _Array:
        """In the place of ``numpy.core.numeric._frombuffer``."""
        array = cls._empty()
        array.plain = _read(dtype, shape, data, order == 'F')
        return array

    def __setstate__(self, state: Any) -> None:
        # A second state would free memory that others, such as tensors, share with the first.
        if self.plain is not None or not isinstance(state, tuple) or len(state) != 5:
            raise UnsupportedNumpyError('Unsupported state of numpy.ndarray')
        _, shape, dtype, fortran, data = state
        array = _read(dtype, shape, data, bool(fortran))
        # As numpy does here.
        self.plain = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder('='))


def _read(dtype: Any, shape: Any, data: Any, fortran: bool = False) -> np.ndarray:
    """Make an array of bytes that a pickle holds; memory of its own."""
    if not isinstance(dtype, _Dtype):
        raise UnsupportedNumpyError('Unsupported numpy.ndarray without a numpy.dtype')
    if isinstance(data, str):  # Python 2's, as text
        data = data.encode('latin1')
    if type(data) not in (bytes, bytearray):
        raise UnsupportedNumpyError(f'Unsupported numpy.ndarray of {type(data).__name__}')
    if not isinstance(shape, tuple) or any(type(size) is not int or size < 0 for size in shape):
        raise UnsupportedNumpyError('Unsupported shape of numpy.ndarray')
    plain = dtype.value()
    count = 1
    for size in shape:
        count *= size
    if len(data) != count * plain.itemsize:
        raise UnsupportedNumpyError(f'Unsupported numpy.ndarray of {len(data)} bytes, expected {shape} {plain}')
    try:
        if not data:  # which frombuffer refuses
            return np.zeros(shape, plain, 'F' if fortran else 'C')
        return np.frombuffer(data, plain).reshape(shape, order='F' if fortran else 'C').copy('K')
    except (ValueError, OverflowError) as error:  # such as too many dimensions
        raise UnsupportedNumpyError(f'Unsupported shape of numpy.ndarray: {error}') from error


class _Bytes:
    """How protocols 0 to 2 write bytes."""

    @classmethod
    def encode(cls, text: Any, encoding: Any) -> bytes:
        """In the place of ``_codecs.encode``, which knows a hundred codecs."""
        if not isinstance(text, str) or encoding != 'latin1':
            raise UnsupportedNumpyError('Unsupported way to write bytes')
        return text.encode('latin1')

    @classmethod
    def empty(cls) -> bytes:
        """In the place of ``bytes``."""
        return b''


def stand_ins() -> Iterator[tuple[str, str, Any]]:
    """Module and name of what a pickle of arrays of numbers and strings calls, and what stands in for it."""
    # Methods bound to their class: a pickle could set attributes of a function.
    yield 'numpy', 'ndarray', _Array
    yield 'numpy', 'dtype', _Dtype
    for module in ('builtins', '__builtin__'):
        yield module, 'bytes', _Bytes.empty
    yield '_codecs', 'encode', _Bytes.encode
    for module in _MODULES:
        yield f'{module}.multiarray', '_reconstruct', _Array.reconstruct
        yield f'{module}.multiarray', 'scalar', _Dtype.scalar
        yield f'{module}.numeric', '_frombuffer', _Array.from_buffer


def restored(value: Any, seen: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """Put arrays and dtypes where their stand-ins are.

    Args:
        value: What a pickle held; its lists and dicts are changed in place.
        seen: By id, what has been visited and what became of it; for calls of its own.

    Returns:
        The value, or what takes its place.

    Raises:
        UnsupportedNumpyError: An array was never given its content.
    """
    kind = type(value)
    if kind in _LEAVES:
        return value
    if isinstance(value, _StandIn):
        return value.value()
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = value, value  # kept, so that no other gets its id
    if isinstance(value, dict):
        for key, old in list(value.items()):
            if type(old) not in _LEAVES and (new := restored(old, seen)) is not old:
                value[key] = new
    elif isinstance(value, list):
        for i, old in enumerate(value):
            if type(old) not in _LEAVES and (new := restored(old, seen)) is not old:
                value[i] = new
    elif kind is tuple:
        parts = tuple(restored(old, seen) for old in value)
        if any(new is not old for new, old in zip(parts, value, strict=True)):
            seen[id(value)] = value, parts
            return parts
    # Of ordered dicts (a state dict's versions), histories and tensors; a class has no dict here.
    attributes = getattr(value, '__dict__', None)
    if type(attributes) is dict:
        restored(attributes, seen)
    return value
