"""The last checkpoint that is whole, and what becomes of damaged ones."""

import pytest
import torch

from nepa_mm.checkpoints import CheckpointError
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


def test_a_whole_one_is_taken_without_a_word(folder, logged):
    assert last_whole(folder) == folder / 'iter_15.pth'
    assert all(damage(folder / f'iter_{n}.pth') is None for n in (5, 10, 15))
    assert logged == []


@pytest.mark.parametrize('harm', [cut, cut_in_half, empty, zeros, flip_a_bit])
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


def test_checkpoints_in_another_folder(folder, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('work')
    (work_dir / 'last_checkpoint').write_text(str(folder / 'iter_15.pth'))
    cut(folder / 'iter_15.pth')
    assert last_whole(work_dir) == folder / 'iter_10.pth'


def test_none_at_all(tmp_path):
    assert last_whole(tmp_path) is None
    assert last_whole(tmp_path / 'nowhere') is None
