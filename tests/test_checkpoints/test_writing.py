"""Files that are whole or not there."""

import errno
import os

import pytest
import torch

from nepa_mm.checkpoints import writing
from nepa_mm.checkpoints.writing import ReplacingBackend, remove_unfinished, replacing, write_checkpoint, write_text


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    file = tmp_path / 'new' / 'a.pth'
    with replacing(file) as stream:
        stream.write(b'half')
        assert not file.exists()
        assert [path.name for path in file.parent.iterdir()] == ['a.pth.writing']
    assert file.read_bytes() == b'half'
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left on device'), KeyboardInterrupt()])
def test_the_old_file_stays_when_the_new_one_fails(tmp_path, error):
    file = tmp_path / 'a.pth'
    file.write_bytes(b'old')
    with pytest.raises(type(error)), replacing(file) as stream:
        stream.write(b'half')
        raise error
    assert file.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [file]


def test_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    """A power cut after the rename must not find an empty file."""
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda handle: (calls.append('fsync'), fsync(handle)))
    monkeypatch.setattr(os, 'replace', lambda a, b: (calls.append('replace'), replace(a, b)))
    write_text('x', tmp_path / 'note')
    assert calls == ['fsync', 'replace', 'fsync']  # the file, its name, the folder that holds the name


def test_checkpoints_and_texts_come_back(tmp_path):
    write_checkpoint(dict(a=torch.arange(3)), tmp_path / 'a.pth')
    assert torch.load(tmp_path / 'a.pth')['a'].tolist() == [0, 1, 2]
    ReplacingBackend().put(b'bytes', tmp_path / 'b')
    ReplacingBackend().put_text('t\u00e4xt', tmp_path / 'c')
    assert (tmp_path / 'b').read_bytes() == b'bytes'
    assert (tmp_path / 'c').read_text(encoding='utf-8') == 't\u00e4xt'


def test_folders_that_cannot_be_flushed_are_no_error(tmp_path, monkeypatch):
    """Some network file systems refuse to flush a folder."""

    def refuse(*args):
        raise OSError(errno.EINVAL, 'Invalid argument')

    monkeypatch.setattr(writing.os, 'open', refuse)
    write_text('x', tmp_path / 'note')
    assert (tmp_path / 'note').read_text() == 'x'


def test_what_a_killed_run_left_is_removed(tmp_path):
    for name in ('a.pth', 'a.pth.writing', 'last_checkpoint.writing'):
        (tmp_path / name).write_bytes(b'')
    assert [file.name for file in remove_unfinished(tmp_path)] == ['a.pth.writing', 'last_checkpoint.writing']
    assert [file.name for file in tmp_path.iterdir()] == ['a.pth']
    assert remove_unfinished(tmp_path / 'nowhere') == []
