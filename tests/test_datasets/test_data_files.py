"""Annotation files: plain data is read, and nothing that would run code."""

import io
import os
import pickle
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


@pytest.mark.parametrize('call', CALLS)
@pytest.mark.parametrize('inside', [False, True])
def test_a_pickle_cannot_call(tmp_path, call, inside):
    trace, path = tmp_path / 'ran', tmp_path / 'ann.pkl'
    payload = Payload(trace, CALLS[call])
    path.write_bytes(pickle.dumps(dict(ANNOTATIONS, x=np.array([payload], dtype=object)) if inside else payload))
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
