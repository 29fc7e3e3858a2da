"""PatientVisBackend: the record of a run on a full disk."""

import json
import os

import pytest
from mmengine.visualization import LocalVisBackend

from nepa_mm.engine import PatientVisBackend


@pytest.fixture
def full(monkeypatch):
    """A disk that takes half of a line and then refuses, while the list is not empty."""
    refuse: list = []
    dump = LocalVisBackend._dump

    def dump_half(self, value_dict, file_path, file_format):
        if not refuse:
            return dump(self, value_dict, file_path, file_format)
        with open(file_path, 'a') as stream:
            stream.write('{"loss": ')
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(LocalVisBackend, '_dump', dump_half)
    return refuse


def test_lines_are_left_out_while_the_disk_is_full(tmp_path, full, logged):
    backend = PatientVisBackend(str(tmp_path))
    backend.add_scalars(dict(loss=1.0), step=1)
    full.append(True)
    backend.add_scalars(dict(loss=2.0), step=2)
    backend.add_scalar('loss', 3.0, step=3)
    full.clear()
    backend.add_scalars(dict(loss=4.0), step=4)
    lines = [json.loads(line) for line in (tmp_path / 'scalars.json').read_text().splitlines()]
    assert [(line['step'], line['loss']) for line in lines] == [(1, 1.0), (4, 4.0)]
    told, again = (text for text in logged if 'scalars.json' in text)
    assert 'scalars.json could not be written: [Errno 28] No space left on device' in told
    assert '2 lines were left out' in again
