"""Annotation files: plain data is read, and nothing that would run code."""

import io
import os
import pickle
import struct
from collections import OrderedDict

import mmengine
import mmpretrain.datasets
import mmseg.datasets
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.fileio.handlers.registry_utils import file_handlers

import nepa_mm  # noqa: F401  puts the readers in place
from nepa_mm.datasets import DataError, UnsafeDataFileError
from nepa_mm.datasets.data_files import PlainPickleHandler, PlainYamlHandler
from nepa_mm.numpy_pickles import stand_ins

POINTER = struct.pack('<Q', 0x4141414141414141)
F8 = np.dtype('f8')
RECONSTRUCT = np.arange(1).__reduce__()[0]
FROM_BUFFER = np.arange(1).__reduce_ex__(5)[0]
ANNOTATIONS = dict(
    metainfo=dict(classes=('a', 'b')),
    data_list=[
        dict(img_path='1.jpg', gt_label=1, boxes=np.arange(8, dtype=np.float32).reshape(2, 4)),
        dict(img_path='2.jpg', gt_label=np.int64(0), ids={1, 2}, extra=OrderedDict(a=None, b=b'\xff', c=1.5, d=True)),
    ],
)


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, trace, call=os.system):
        self.trace, self.call = trace, call

    def __reduce__(self):
        return self.call, (f'touch {self.trace}',)


class Call:
    """What a pickle calls with any arguments and state."""

    def __init__(self, call, *args, state=None):
        self.call = (call, args) if state is None else (call, args, state)

    def __reduce__(self):
        return self.call


def assert_annotations(data):
    assert data['metainfo'] == ANNOTATIONS['metainfo']
    first, second = data['data_list']
    np.testing.assert_array_equal(first.pop('boxes'), ANNOTATIONS['data_list'][0]['boxes'])
    assert first == dict(img_path='1.jpg', gt_label=1)
    assert second == ANNOTATIONS['data_list'][1]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('ending', ['pkl', 'pickle'])
def test_plain_data_is_read_whatever_the_protocol(tmp_path, protocol, ending):
    path = tmp_path / f'ann.{ending}'
    path.write_bytes(pickle.dumps(ANNOTATIONS, protocol))
    assert_annotations(mmengine.load(path))


def test_what_mmengine_writes_is_read(tmp_path):
    for name in ('ann.pkl', 'ann.yaml'):
        data = ANNOTATIONS if name.endswith('pkl') else dict(a=[1, 2.5, 'b'], c=None)
        mmengine.dump(data, tmp_path / name)
        if name.endswith('pkl'):
            assert_annotations(mmengine.load(tmp_path / name))
        else:
            assert mmengine.load(tmp_path / name) == data


CALLS = {
    'os.system': os.system,
    'eval': eval,
    'getattr': getattr,
    'torch.load': torch.load,
    'numpy.load': np.load,
    'mmengine.load': mmengine.load,
}


def array_state(dtype, data=POINTER, shape=(1,)):
    return (1, shape, dtype, False, data)


# Each would make an array whose elements are objects at an address of the file's choice, or reach further.
EVIL = {
    'constructor': lambda: Call(np.ndarray, (1,), np.dtype('O'), bytearray(POINTER)),
    'constructor, by name': lambda: Call(np.ndarray, (1,), 'O', bytearray(POINTER)),
    'constructor of numbers': lambda: Call(np.ndarray, (1,), 'f8', bytearray(POINTER), 0, (1 << 40,)),
    'dtype': lambda: np.dtype('O'),
    'dtype of fields': lambda: np.dtype([('f', 'O')]),
    'dtype by its fields': lambda: Call(np.dtype, [('f', 'O')]),
    'dtype by a dict': lambda: Call(np.dtype, dict(names=['f'], formats=['O'])),
    'dtype by another name': lambda: Call(np.dtype, 'object'),
    'void dtype with hidden objects': lambda: Call(
        np.dtype, 'V8', False, True, state=(3, '|', None, ('f',), {'f': (np.dtype('f8'), 0)}, 8, 1, 0)
    ),
    'number dtype with hidden objects': lambda: Call(
        np.dtype, 'f8', False, True, state=(3, '<', None, ('f',), {'f': (np.dtype('f8'), 0)}, 8, 1, 0)
    ),
    'number dtype with a subarray': lambda: Call(
        np.dtype, 'f8', False, True, state=(3, '<', (np.dtype('f8'), (1 << 40,)), None, None, 8, 1, 0)
    ),
    'array of objects': lambda: np.array([1, None], dtype=object),
    'array larger than its data': lambda: Call(RECONSTRUCT, np.ndarray, (0,), b'b', state=array_state(F8, shape=(9,))),
    'array of negative size': lambda: Call(RECONSTRUCT, np.ndarray, (0,), b'b', state=array_state(F8, shape=(-1,))),
    'array of overflowing size': lambda: Call(
        RECONSTRUCT, np.ndarray, (0,), b'b', state=array_state(F8, shape=(1 << 62, 4))
    ),
    'array of a size that is no number': lambda: Call(
        RECONSTRUCT, np.ndarray, (0,), b'b', state=array_state(F8, shape=(1.0,))
    ),
    'array without a dtype': lambda: Call(RECONSTRUCT, np.ndarray, (0,), b'b', state=array_state('O')),
    'array without content': lambda: Call(RECONSTRUCT, np.ndarray, (0,), b'b'),
    'array of another kind': lambda: Call(RECONSTRUCT, set, (0,), b'b'),
    'array of an array': lambda: Call(
        RECONSTRUCT, np.ndarray, (0,), b'b', state=array_state(F8, np.arange(1.0))
    ),
    'scalar of objects': lambda: Call(np.float64(0).__reduce__()[0], np.dtype('O'), POINTER),
    'scalar larger than its data': lambda: Call(np.float64(0).__reduce__()[0], F8, b'1'),
    'buffer of objects': lambda: Call(FROM_BUFFER, bytearray(POINTER), np.dtype('O'), (1,), 'C'),
    'buffer of an array': lambda: Call(FROM_BUFFER, np.arange(1.0), F8, (1,), 'C'),
}  # fmt: skip


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('evil', EVIL)
def test_a_pickle_cannot_choose_memory(evil, protocol):
    """Refused while it is read, before anything has such an array in hand."""
    data = pickle.dumps([1, EVIL[evil]()], protocol)
    with pytest.raises(UnsafeDataFileError, match='holds what numpy should not build: Unsupported .*could run code'):
        PlainPickleHandler().load_from_fileobj(io.BytesIO(data))


def test_an_array_is_filled_only_once():
    """A second content would free the first, which others may share."""
    once = pickle.dumps(np.arange(2.0), 2)
    state = once[once.index(b'(K\x01') : once.rindex(b'b.')]
    with pytest.raises(UnsafeDataFileError, match='Unsupported state of numpy.ndarray'):
        PlainPickleHandler().load_from_fileobj(io.BytesIO(once[:-1] + state + b'b.'))


def test_a_pickle_cannot_change_what_stands_in_for_numpy():
    """State that a pickle gives to a function or a class would hold for all files read later."""
    for module, name, stand_in in stand_ins():
        data = b'\x80\x02c' + f'{module}\n{name}\n'.encode()
        data += pickle.dumps((None, dict(__doc__='changed', __setstate__=1)), 2)[2:-1] + b'b.'
        before = stand_in.__doc__
        with pytest.raises((TypeError, AttributeError, UnsafeDataFileError)):
            PlainPickleHandler().load_from_fileobj(io.BytesIO(data))
        assert stand_in.__doc__ == before


ARRAYS = {
    'integers': np.arange(6).reshape(2, 3),
    'by columns': np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    'transposed': np.arange(6.0).reshape(2, 3).T,
    'every second': np.arange(10)[::2],
    'strings': np.array(['a', 'bcd']),
    'bytes': np.array([b'x', b'']),
    'booleans': np.array([True, False]),
    'complex': np.array([1j]),
    'half': np.float16([1.5, 2]),
    'big endian': np.arange(3, dtype='>i4'),
    'no dimensions': np.array(3),
    'empty': np.zeros((0, 3)),
    'numbers': [np.float32(2.5), np.int64(3), np.bool_(True), np.str_('ab'), np.complex64(1j), np.uint8(255)],
    'dtypes': [np.dtype('>f8'), np.dtype('U3'), np.dtype(bool)],
}


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('module', ['numpy._core', 'numpy.core'])
def test_arrays_come_back_as_numpy_has_them(protocol, module):
    data = pickle.dumps(dict(ARRAYS, again=ARRAYS['integers'], within=(1, [ARRAYS['bytes']])), protocol)
    expected = pickle.loads(data)
    written = 'numpy._core' if b'numpy._core' in data else 'numpy.core'
    if protocol < 4:  # names without their lengths
        data = data.replace(f'c{written}.'.encode(), f'c{module}.'.encode())
    found = PlainPickleHandler().load_from_fileobj(io.BytesIO(data))
    assert found.keys() == expected.keys() and found['again'] is found['integers']
    assert found['within'][1][0] is found['bytes'] and type(found['within']) is tuple
    for name in ARRAYS:
        many = isinstance(ARRAYS[name], list)
        pairs = zip(found[name], expected[name], strict=True) if many else [(found[name], expected[name])]
        for one, other in pairs:
            assert type(one) is type(other)
            if isinstance(other, np.dtype):
                assert one == other
                continue
            np.testing.assert_array_equal(one, other, strict=True)
            if isinstance(other, np.ndarray):
                assert one.flags.writeable == other.flags.writeable
                assert one.flags.f_contiguous == other.flags.f_contiguous


@pytest.mark.parametrize('call', CALLS)
@pytest.mark.parametrize('inside', [False, True])
def test_a_pickle_cannot_call(tmp_path, call, inside):
    trace, path = tmp_path / 'ran', tmp_path / 'ann.pkl'
    payload = Payload(trace, CALLS[call])
    path.write_bytes(pickle.dumps(dict(ANNOTATIONS, x=[payload]) if inside else payload))
    with pytest.raises(
        UnsafeDataFileError, match=r'a .pkl file \(ann_file.* calls [\w.]+; reading that could run code'
    ):
        mmengine.load(path)
    assert not trace.exists()


def test_a_pickle_written_by_hand_cannot_reach_further():
    """Protocol 4 looks names up with dots: an allowed module is no way to what it has imported."""
    for module, name in (('numpy', 'os.system'), ('numpy', 'ndarray.__reduce__'), ('builtins', 'set.__class__')):
        text = b'\x80\x04\x8c' + bytes([len(module)]) + module.encode() + b'\x8c' + bytes([len(name)]) + name.encode()
        with pytest.raises(UnsafeDataFileError, match='could run code'):
            PlainPickleHandler().load_from_fileobj(io.BytesIO(text + b'\x93.'))


@pytest.mark.parametrize(
    'text',
    [
        'a: !!python/object/apply:os.system ["touch {trace}"]',
        '!!python/object/new:os.system ["touch {trace}"]',
        'a: !!python/name:os.system',
        'a: !!python/module:os',
    ],
)
def test_yaml_cannot_call(tmp_path, text):
    trace, path = tmp_path / 'ran', tmp_path / 'ann.yaml'
    path.write_text('b: 1\n' + text.format(trace=trace) if text.startswith('a') else text.format(trace=trace))
    with pytest.raises(UnsafeDataFileError, match=r'asks for Python objects, which could run code .*, line [12]\)'):
        mmengine.load(path)
    assert not trace.exists()


@pytest.mark.parametrize('ending', ['pkl', 'yaml'])
@pytest.mark.parametrize('host', ['mmengine', 'mmpretrain', 'mmseg'])
def test_data_sets_of_the_hosts_read_their_annotations_with_it(tmp_path, host, ending):
    trace, path = tmp_path / 'ran', tmp_path / f'ann.{ending}'
    if ending == 'pkl':
        path.write_bytes(pickle.dumps(dict(ANNOTATIONS, x=Payload(trace))))
    else:
        path.write_text(f'metainfo: !!python/object/apply:os.system ["touch {trace}"]\ndata_list: []\n')
    kinds = dict(
        mmengine=BaseDataset, mmpretrain=mmpretrain.datasets.BaseDataset, mmseg=mmseg.datasets.DecathlonDataset
    )
    with pytest.raises(DataError, match='could run code'):
        kinds[host](ann_file=str(path), data_root=str(tmp_path), pipeline=[])
    assert not trace.exists()


def test_the_readers_are_in_place():
    assert {type(file_handlers[ending]) for ending in ('pkl', 'pickle')} == {PlainPickleHandler}
    assert {type(file_handlers[ending]) for ending in ('yaml', 'yml')} == {PlainYamlHandler}
