"""The last checkpoint that is whole, and what becomes of damaged ones."""

import shutil
from datetime import timedelta

import pytest
import torch

from nepa_mm.checkpoints import CheckpointError, read_checkpoint
from nepa_mm.checkpoints.latest import damage, last_whole


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints of a run, and what else lies in a work directory."""
    for number in (5, 10, 15):
        torch.save(dict(state_dict=dict(w=torch.randn(200, 9)), meta={}, optimizer={}), tmp_path / f'iter_{number}.pth')
    (tmp_path / 'best_mIoU_iter_15.pth').write_bytes(b'weights only')
    (tmp_path / 'iter_15-0123abcd.pth').write_bytes(b'published')
    (tmp_path / 'iter_20.pth.writing').write_bytes(b'half')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_15.pth'))
    return tmp_path


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])
    return 'cut short'


def cut_in_half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return 'cut short'


def empty(file):
    file.write_bytes(b'')
    return 'is empty'


def zeros(file):
    """What some file systems leave after a power cut."""
    file.write_bytes(bytes(file.stat().st_size))
    return 'damaged or cut short'


def flip_a_bit(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return 'checksum'


def flip_in_the_name(file):
    """Of the last part, in the list of contents, which has no checksum: it is no text any more."""
    data = bytearray(file.read_bytes())
    data[data.rindex(b'PK\x01\x02') + 46] ^= 0x80
    file.write_bytes(data)
    return "can't decode byte"


def flip_in_the_method(file):
    """By which the last part is compressed, in the list of contents: there is no such method."""
    data = bytearray(file.read_bytes())
    data[data.rindex(b'PK\x01\x02') + 10] ^= 0x40
    file.write_bytes(data)
    return 'compression method'


def flip_in_the_count(file):
    """Of parts: Python's reader does not look at it, torch's does."""
    data = bytearray(file.read_bytes())
    data[data.rindex(b'PK\x06\x06') + 38] ^= 1
    file.write_bytes(data)
    return 'PytorchStreamReader'


def test_a_whole_one_is_taken_without_a_word(folder, logged):
    assert last_whole(folder) == folder / 'iter_15.pth'
    assert all(damage(folder / f'iter_{n}.pth') is None for n in (5, 10, 15))
    assert logged == []


@pytest.mark.parametrize(
    'harm',
    [cut, cut_in_half, empty, zeros, flip_a_bit, flip_in_the_name, flip_in_the_method, flip_in_the_count],
)
def test_the_one_before_a_damaged_one_is_taken(folder, harm, logged):
    newest = folder / 'iter_15.pth'
    reason = harm(newest)
    kept = newest.read_bytes()
    assert last_whole(folder) == folder / 'iter_10.pth'
    (text,) = logged
    assert text.startswith(f'Checkpoint {newest} is damaged: ')
    assert reason in text
    assert text.endswith(f'it is kept as iter_15.pth.damaged; taking {folder / "iter_10.pth"} instead.')
    assert (folder / 'iter_15.pth.damaged').read_bytes() == kept
    assert not newest.exists()


def test_numbers_count_not_letters(folder):
    cut(folder / 'iter_15.pth')
    (folder / 'iter_5.pth').rename(folder / 'iter_9.pth')
    assert last_whole(folder) == folder / 'iter_10.pth'


def test_two_damaged_ones(folder, logged):
    cut(folder / 'iter_15.pth')
    flip_a_bit(folder / 'iter_10.pth')
    assert last_whole(folder) == folder / 'iter_5.pth'
    assert len(logged) == 2


def test_all_damaged_is_an_error_that_names_them(folder):
    for number in (5, 10, 15):
        cut(folder / f'iter_{number}.pth')
    with pytest.raises(
        CheckpointError, match=r'iter_15\.pth is damaged.*iter_10\.pth is damaged.*iter_5\.pth is'
    ) as error:
        last_whole(folder)
    assert 'Name a whole one by --resume CHECKPOINT' in str(error.value)


def test_a_note_that_names_what_is_gone(folder, logged):
    (folder / 'iter_15.pth').unlink()
    assert last_whole(folder) == folder / 'iter_10.pth'
    assert 'iter_15.pth (named by ' in logged[0]
    assert 'does not exist; taking ' in logged[0]


def test_the_note_is_followed_where_a_newer_file_lies_beside(folder):
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_10.pth'))
    assert last_whole(folder) == folder / 'iter_10.pth'


@pytest.mark.parametrize('note', [None, ''])
def test_without_a_note_the_newest_is_taken(folder, note):
    """A run was killed between its first checkpoint and its note."""
    (folder / 'last_checkpoint').unlink()
    if note is not None:
        (folder / 'last_checkpoint').write_text(note)
    assert last_whole(folder) == folder / 'iter_15.pth'


def test_a_moved_folder(folder):
    (folder / 'last_checkpoint').write_text('/gone/iter_10.pth')
    assert last_whole(folder) == folder / 'iter_10.pth'


def test_a_copied_folder(folder, tmp_path_factory, logged):
    """The run that was copied goes on, and its newest checkpoint is damaged: neither is this folder's concern."""
    copy = tmp_path_factory.mktemp('copy') / folder.name  # the same name does not make it the same run
    shutil.copytree(folder, copy)
    assert last_whole(copy) == copy / 'iter_15.pth'
    cut(folder / 'iter_15.pth')
    assert last_whole(copy) == copy / 'iter_15.pth'
    cut(copy / 'iter_15.pth')
    assert last_whole(copy) == copy / 'iter_10.pth'
    assert len(logged) == 1
    assert sorted(file.name for file in folder.glob('iter_*.pth*'))[1] == 'iter_15-0123abcd.pth'
    assert (folder / 'iter_15.pth').exists()


def test_a_folder_copied_without_its_checkpoints(folder, tmp_path_factory, logged):
    """What the note names is taken from the other run, and nothing else; nothing is renamed there."""
    copy = tmp_path_factory.mktemp('copy')
    shutil.copy(folder / 'last_checkpoint', copy)
    assert last_whole(copy) == folder / 'iter_15.pth'
    assert logged == [
        f'{folder / "iter_15.pth"}, which {copy / "last_checkpoint"} names, lies in the folder of another run.'
    ]
    cut(folder / 'iter_15.pth')
    with pytest.raises(
        CheckpointError, match=r'iter_15\.pth is damaged: .*; it is left as it is, in the folder of ano'
    ):
        last_whole(copy)
    assert (folder / 'iter_15.pth').exists()
    (folder / 'iter_15.pth').unlink()
    with pytest.raises(CheckpointError, match=r'iter_15\.pth \(named by .*\) does not exist'):
        last_whole(copy)


def test_checkpoints_in_another_folder(folder, tmp_path_factory):
    """Of a hook with an out_dir, in which it makes a folder of the work directory's name."""
    work_dir = tmp_path_factory.mktemp('work') / folder.name
    work_dir.mkdir()
    (folder / 'last_checkpoint').rename(work_dir / 'last_checkpoint')
    cut(folder / 'iter_15.pth')
    assert last_whole(work_dir) == folder / 'iter_10.pth'
    assert (folder / 'iter_15.pth.damaged').exists()


@pytest.mark.parametrize('old', ['iter_50000.pth', 'epoch_12.pth'])
def test_an_earlier_run_in_the_same_folder_is_not_continued(folder, old, logged):
    shutil.copy(folder / 'iter_5.pth', folder / old)
    cut(folder / 'iter_15.pth')
    assert last_whole(folder) == folder / 'iter_10.pth'
    cut(folder / 'iter_10.pth')
    assert last_whole(folder) == folder / 'iter_5.pth'
    assert not any('earlier run' in text for text in logged)
    cut(folder / 'iter_5.pth')
    assert last_whole(folder) == folder / old
    assert 'none before it is whole: it may be of an earlier run in this folder' in logged[-1]


def test_one_of_inside_an_epoch_lies_between_two_epochs(tmp_path):
    names = ['epoch_1.pth', 'epoch_1_iter_300.pth', 'epoch_1_iter_1200.pth', 'epoch_2.pth', 'epoch_10.pth']
    for name in names:
        torch.save(dict(state_dict=dict(w=torch.ones(2))), tmp_path / name)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_10.pth'))
    for name in reversed(names):
        assert last_whole(tmp_path) == tmp_path / name
        cut(tmp_path / name)


def test_what_is_whole_but_refused_is_left_to_the_loader(tmp_path):
    """Its bytes are as they were written: setting it aside would hide the reason."""
    file = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict=dict(w=torch.ones(2)), meta=timedelta(1)), file)
    assert last_whole(tmp_path) == file
    with pytest.raises(CheckpointError, match='Python objects other than weights'):
        read_checkpoint(file)


def test_a_folder_that_may_only_be_read(folder, monkeypatch, logged):
    def refuse(*args):
        raise PermissionError(13, 'Permission denied')

    cut(folder / 'iter_15.pth')
    monkeypatch.setattr('nepa_mm.checkpoints.latest.os.replace', refuse)
    assert last_whole(folder) == folder / 'iter_10.pth'
    assert 'it cannot be renamed ([Errno 13] Permission denied)' in logged[0]


def test_a_note_of_no_text(folder):
    (folder / 'last_checkpoint').write_bytes(b'\xff\x00\xfe')
    assert last_whole(folder) == folder / 'iter_15.pth'


def test_none_at_all(tmp_path):
    assert last_whole(tmp_path) is None
    assert last_whole(tmp_path / 'nowhere') is None
