"""Sources in folders and archives, and folders that are written all or nothing."""

import gzip
import io
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image

from nepa_mm.datasets import preparation
from nepa_mm.datasets.preparation import (
    LabelTable,
    PreparationError,
    SourceFile,
    collect_files,
    decode_label,
    image_size,
    match_files,
    name_some,
    new_folder,
    pair_files,
    run_parallel,
    writing,
)
from tests.archives import bands, mask, picture, sbd_mat, tar_bytes, write_folder, write_zip

MEMBERS = {'a/one.txt': b'one', 'a/b/two.txt': b'two' * 1000, '.hidden': b'', '__MACOSX/a/one.txt': b'', 'a/.DS': b''}
LISTED = {'a/one.txt': b'one', 'a/b/two.txt': b'two' * 1000}


def contents(source, tmp_path):
    return {name: file.read() for name, file in collect_files([source], tmp_path / 'scratch')}


@pytest.mark.parametrize('form', ['folder', 'zip', 'tar', 'w:gz', 'w:bz2', 'w:xz'])
def test_reads_every_form(form, tmp_path):
    source = tmp_path / 'source.bin'
    if form == 'folder':
        write_folder(source, MEMBERS)
    elif form == 'zip':
        write_zip(source, {**MEMBERS, 'empty/': b''})
    else:
        source.write_bytes(tar_bytes(MEMBERS, 'w' if form == 'tar' else form))
    assert contents(source, tmp_path) == LISTED
    # Only what is compressed as a whole is unpacked.
    assert (tmp_path / 'scratch').exists() == form.startswith('w:')
    files = dict(collect_files([source], tmp_path / 'again'))
    assert [file.size() for file in files.values()] == [6 * 500, 3]
    for file in files.values():
        assert pickle.loads(pickle.dumps(file)).read() == file.read()


def test_tar_in_tar(tmp_path):
    outer = tmp_path / 'outer.tar'
    outer.write_bytes(
        tar_bytes({'x.tar': tar_bytes({'1.txt': b'1' * 700, 'y.tar': tar_bytes({'2.txt': b'2'})}), 'z': b'z'})
    )
    assert contents(outer, tmp_path) == {'x/1.txt': b'1' * 700, 'x/y/2.txt': b'2', 'z': b'z'}


def test_several_sources_and_links(tmp_path):
    one = write_folder(tmp_path / 'one', {'a.txt': b'1'})
    two = write_folder(tmp_path / 'two', {'a.txt': b'2', 'deep/b.txt': b'b'})
    (one / 'linked').symlink_to(two / 'deep')
    (one / 'loop').symlink_to(one)
    found = [(name, file.read()) for name, file in collect_files([one, two], tmp_path / 'scratch')]
    assert found == [('a.txt', b'1'), ('a.txt', b'2'), ('deep/b.txt', b'b'), ('linked/b.txt', b'b')]


@pytest.mark.parametrize('name', ['../evil.txt', '/etc/evil.txt', 'a/../../evil.txt', r'..\evil.txt', r'C:\evil.txt'])
@pytest.mark.parametrize('form', ['zip', 'w', 'w:gz'])
def test_names_that_leave_the_folder(name, form, tmp_path):
    source = tmp_path / 'in' / 'bad'
    source.parent.mkdir()
    if form == 'zip':
        write_zip(source, {name: b'evil'})
    else:
        source.write_bytes(tar_bytes({name: b'evil'}, form))
    with pytest.raises(PreparationError, match='points outside of its folder'):
        collect_files([source], tmp_path / 'in' / 'scratch')
    assert not list(tmp_path.rglob('*evil*'))


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize('mode', ['w', 'w:gz'])
def test_links_and_devices_in_tars(kind, mode, tmp_path):
    source = tmp_path / 'bad.tar'
    with tarfile.open(source, mode) as archive:
        info = tarfile.TarInfo('trap')
        info.type, info.linkname = kind, '/etc/passwd'
        archive.addfile(info)
    with pytest.raises(PreparationError, match="member 'trap' is a link or a device"):
        collect_files([source], tmp_path / 'scratch')


def test_links_in_zips(tmp_path):
    source = tmp_path / 'bad.zip'
    with zipfile.ZipFile(source, 'w') as archive:
        info = zipfile.ZipInfo('trap')
        info.external_attr = 0o120777 << 16
        archive.writestr(info, '/etc/passwd')
    with pytest.raises(PreparationError, match="member 'trap' is a link or a device"):
        collect_files([source], tmp_path / 'scratch')


@pytest.mark.parametrize('form', ['zip', 'gz', 'xz', 'bz2'])
def test_archives_that_swell(form, tmp_path, monkeypatch):
    """Refused before anything of that size is written or held; small ones may shrink as they like."""
    monkeypatch.setattr('nepa_mm.datasets.preparation.sources._ALWAYS_ALLOWED', 1 << 20)
    # The headers of a tar count, too.
    for size, refused in ((1 << 20) - (1 << 14), False), (5 << 20, True):
        source = tmp_path / f'{size}.{form}'
        if form == 'zip':
            with zipfile.ZipFile(source, 'w', zipfile.ZIP_DEFLATED) as archive:
                for i in range(4):
                    archive.writestr(f'{i}.txt', bytes(size // 4))
        else:
            source.write_bytes(tar_bytes({f'{i}.txt': bytes(size // 4) for i in range(4)}, f'w:{form}'))
        if refused:
            with pytest.raises(
                PreparationError, match=r'would unpack from 0.0 MB to 0.0 GB or more, as no data set of'
            ):
                collect_files([source], tmp_path / 'scratch' / source.name)
        else:
            assert len(collect_files([source], tmp_path / 'scratch' / source.name)) == 4
    written = sum(path.stat().st_size for path in (tmp_path / 'scratch').rglob('*.txt'))
    assert written <= 5 << 20


def test_a_zip_whose_members_say_less_than_they_hold(tmp_path):
    source = write_zip(tmp_path / 'a.zip', {'a.txt': b'x' * 1000})
    data = source.read_bytes().replace((1000).to_bytes(4, 'little'), (10).to_bytes(4, 'little'))
    source.write_bytes(data)
    ((_, file),) = collect_files([source], tmp_path / 'scratch')
    with pytest.raises(PreparationError, match='cannot be read'):
        file.read()


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_other_methods(method, tmp_path):
    """Python unpacks those without a limit, whatever the member says of itself."""
    source = tmp_path / 'a.zip'
    with zipfile.ZipFile(source, 'w', method) as archive:
        archive.writestr('a.txt', bytes(1 << 16))
    with pytest.raises(PreparationError, match=r"member 'a.txt' is compressed by method \d+, which the published"):
        collect_files([source], tmp_path / 'scratch')


def test_a_zip_member_is_unpacked_no_further_than_it_says(tmp_path):
    size, said = 64 << 20, 1000
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a.txt', bytes(size))
    data = (tmp_path / 'a.zip').read_bytes()
    (tmp_path / 'a.zip').write_bytes(data.replace(size.to_bytes(4, 'little'), said.to_bytes(4, 'little')))
    ((_, file),) = collect_files([tmp_path / 'a.zip'], tmp_path / 'scratch')
    tracemalloc.start()
    try:
        with pytest.raises(PreparationError, match='cannot be read'):
            file.read()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('mode', ['w', 'w:gz'])
@pytest.mark.parametrize('kind', [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_tar_headers_that_fill_the_memory(kind, mode, tmp_path):
    header = tarfile.TarInfo('h')
    header.type, header.size = kind, (1 << 20) + 1
    source = tmp_path / 'bad.tar'
    data = header.tobuf(tarfile.USTAR_FORMAT) + bytes(header.size) + bytes(4096)
    source.write_bytes(data if mode == 'w' else gzip.compress(data))
    with pytest.raises(PreparationError, match="'h', the header of a tar member, takes 1.0 MB; do not trust"):
        collect_files([source], tmp_path / 'scratch')


def test_long_names_in_tars(tmp_path):
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        name, source = f'{"ä" * 100}/{"b" * 200}.txt', tmp_path / f'{form}.tar'
        with tarfile.open(source, 'w', format=form) as archive:
            archive.addfile(tarfile.TarInfo(name))
        assert [found for found, _ in collect_files([source], tmp_path / 'scratch')] == [name]


@pytest.mark.parametrize('mode', ['w', 'w:gz'])
@pytest.mark.parametrize('form', ['gnu', 'pax 0.0', 'pax 0.1', 'pax 1.0'])
def test_tar_members_with_holes(form, mode, tmp_path):
    """Which are as large as they say, with nothing in the archive."""
    info = tarfile.TarInfo('a.jpg')
    if form == 'gnu':
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        block[156:157] = tarfile.GNUTYPE_SPARSE
        block[386:410] = b'00000000000\0' * 2
        block[483:495] = b'%011o\0' % (6 << 30)
        block[148:156] = b' ' * 8
        block[148:156] = b'%06o\0 ' % sum(block)
        data = bytes(block)
    else:
        size = str(6 << 30)
        info.pax_headers = {
            'pax 0.0': {'GNU.sparse.size': size, 'GNU.sparse.numblocks': '1', 'GNU.sparse.offset': '0'},
            'pax 0.1': {'GNU.sparse.map': '0,0', 'GNU.sparse.size': size},
            'pax 1.0': {'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': size},
        }[form]
        if form == 'pax 0.0':
            info.pax_headers['GNU.sparse.numbytes'] = '0'
        data = info.tobuf(tarfile.PAX_FORMAT)
    source = tmp_path / 'bad.tar'
    source.write_bytes(data + bytes(10240) if mode == 'w' else gzip.compress(data + bytes(10240)))
    with pytest.raises(PreparationError, match='has holes'):
        for _, file in collect_files([source], tmp_path / 'scratch'):
            assert file.size() < 1 << 20


def test_a_tar_member_of_negative_size(tmp_path):
    info = tarfile.TarInfo('a.jpg')
    info.pax_headers = {'size': '-512'}
    (tmp_path / 'bad.tar').write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(10240))
    with pytest.raises(PreparationError, match=r'bad\.tar'):
        collect_files([tmp_path / 'bad.tar'], tmp_path / 'scratch')


def test_tar_headers_within_headers(tmp_path):
    """Each is read inside the one before."""
    header = tarfile.TarInfo('h')
    header.type = tarfile.XHDTYPE
    (tmp_path / 'bad.tar').write_bytes(header.tobuf(tarfile.USTAR_FORMAT) * 2000 + bytes(10240))
    with pytest.raises(PreparationError, match=r'bad\.tar is no folder, zip or tar, or is damaged'):
        collect_files([tmp_path / 'bad.tar'], tmp_path / 'scratch')


def test_no_archive(tmp_path):
    source = tmp_path / 'gtFine.zip'
    source.write_bytes(b'\n<!DOCTYPE html><title>Log in</title>')
    with pytest.raises(PreparationError, match='is a web page, no archive; log in'):
        collect_files([source], tmp_path)
    for data in (b'', b'just text' * 100, os.urandom(3000)):
        source.write_bytes(data)
        with pytest.raises(PreparationError, match='gtFine.zip is no folder, zip or tar, or is damaged'):
            collect_files([source], tmp_path)
    with pytest.raises(PreparationError, match='missing.zip does not exist'):
        collect_files([tmp_path / 'missing.zip'], tmp_path)


def test_archives_that_are_cut(tmp_path):
    """Wherever the download stopped, in each form."""
    whole = {'zip': write_zip(tmp_path / 'whole', LISTED).read_bytes()}
    whole |= {mode: tar_bytes(LISTED, mode) for mode in ('w', 'w:gz', 'w:xz')}
    for form, data in whole.items():
        # A tar's records are padded to 20 blocks; beyond the end mark nothing is lost.
        end = data.rstrip(b'\0') if form == 'w' else data
        for share in (0.2, 0.5, 0.9, 0.99):
            source = tmp_path / 'cut'
            source.write_bytes(data[: int(len(end) * share)])
            with pytest.raises(PreparationError, match=r'cut is no folder, zip or tar|the archive ends inside it'):
                contents(source, tmp_path / f'{form.replace(":", "")}{share}')


def test_tar_with_a_damaged_header(tmp_path):
    """Plain tarfile would end the list there, in silence."""
    data = bytearray(tar_bytes({name: name.encode() for name in ('a', 'b', 'c')}))
    data[1024 + 150] ^= 1  # in the checksum of the second header
    source = tmp_path / 'bad.tar'
    source.write_bytes(data)
    with tarfile.open(source) as archive:
        assert archive.getnames() == ['a']
    with pytest.raises(PreparationError, match='no tar header at byte 1024'):
        collect_files([source], tmp_path)


def test_zip_with_a_password(tmp_path):
    source = write_zip(tmp_path / 'locked.zip', {'a.txt': b'a'})
    data = bytearray(source.read_bytes())
    data[6] |= 1  # in the member's header and in the index
    data[data.index(b'PK\x01\x02') + 8] |= 1
    source.write_bytes(data)
    with pytest.raises(PreparationError, match='locked.zip: a.txt: cannot be read .*encrypted'):
        contents(source, tmp_path)


def test_file_that_vanished(tmp_path):
    with pytest.raises(PreparationError, match='none.png: cannot be read'):
        SourceFile(str(tmp_path / 'none.png')).read()


def test_match_files():
    files = [(name, SourceFile(name)) for name in ('x/images/val/a.jpg', 'images/val/b.jpg', 'ximages/val/c.jpg')]
    found = match_files(files, r'images/(train|val)/([^/]+)\.jpg')
    assert {key: file.path for key, file in found.items()} == {
        ('val', 'a'): 'x/images/val/a.jpg',
        ('val', 'b'): 'images/val/b.jpg',
    }
    with pytest.raises(PreparationError, match='given twice: x/images/val/a.jpg and y/images/val/a.jpg'):
        match_files(
            [files[0], ('images/val/a.jpg', SourceFile('y/images/val/a.jpg'))], r'images/(train|val)/([^/]+)\.jpg'
        )


def test_pair_files():
    file = SourceFile('x')
    images = {('train', name): file for name in 'abc'} | {('test', 'z'): file}
    labels = {('train', name): file for name in 'bcd'}
    splits, problems = pair_files(images, labels, {'train': 3, 'val': 2, 'test': 5}, any_count=True, optional=('val',))
    assert splits == {'train': ['b', 'c'], 'test': []}
    assert problems == ['train: no label for a', 'train: no image for d', 'test: no label for z']
    assert pair_files({}, {}, {'val': 2}, any_count=True)[1] == ['val: no images']
    assert pair_files({}, {}, {'val': 2}, optional=('val',)) == ({}, [])


def test_labels():
    table = LabelTable({0: 255, 1: 0, 255: 255}, expected='0, 1 or 255')
    np.testing.assert_array_equal(table(np.array([[0, 1], [255, 1]], np.uint8)), [[255, 0], [255, 0]])
    assert table(np.zeros((1, 1), np.uint8)).dtype == np.uint8
    with pytest.raises(ValueError, match='label 2, 254, expected 0, 1 or 255'):
        table(np.array([[0, 254], [2, 2]], np.uint8))
    with pytest.raises(ValueError, match=r'label 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more, expected'):
        table(np.arange(20, dtype=np.uint8)[None])
    np.testing.assert_array_equal(decode_label(mask([3, 200], palette=True)), bands([3, 200]))
    stream = io.BytesIO()
    Image.fromarray(np.array([[300]], np.uint16)).save(stream, 'PNG')
    for data, message in ((picture(0, kind='PNG'), 'mode RGB'), (stream.getvalue(), 'mode I;16'), (b'', 'decoded')):
        with pytest.raises(ValueError, match=message):
            decode_label(data)
    assert image_size(picture(0, (5, 7))) == (7, 5)
    for cut in (b'', picture(0)[:300], picture(0)[:-50], picture(0, kind='PNG')[:-100]):
        with pytest.raises(ValueError, match='cannot be decoded'):
            image_size(cut)


@pytest.mark.parametrize('value', [-1, 256])
def test_class_masks_of_sbd_keep_their_values(value):
    label = np.array([[0, 20], [3, 1]], np.uint8)
    np.testing.assert_array_equal(preparation.decode_sbd(sbd_mat(label)), label)
    with pytest.raises(ValueError, match=r'GTcls.Segmentation holds .*, expected 0 to 255'):
        preparation.decode_sbd(sbd_mat(np.array([[0, value]], np.int16)))


def test_name_some():
    assert name_some({'b', 'a'}) == 'a, b'
    assert name_some([f'{i:02d}' for i in range(12)]).endswith('08, 09 and 2 more')


def test_new_folder_appears_at_once(tmp_path):
    dst = tmp_path / 'deep' / 'dst'
    with new_folder(dst) as (new, scratch):
        (new / 'file').write_text('x')
        (scratch / 'temporary').write_text('x')
        assert not dst.exists()
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob('*'))] == ['deep', 'deep/dst', 'deep/dst/file']
    with pytest.raises(FileExistsError, match='exists and is not empty'), new_folder(dst):
        pass
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / 'a' / 'b' / 'other') as (new, _):
        (new / 'file').write_text('x')
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ['deep']
    with new_folder(None) as (nothing, scratch):
        assert nothing is None and scratch.is_dir()
    assert not scratch.exists()


def test_new_folder_behind_a_link(tmp_path):
    """A link to an empty folder, as on another disk, stays one, and its folder is filled."""
    (tmp_path / 'disk' / 'real').mkdir(parents=True)
    link = tmp_path / 'data'
    link.symlink_to(tmp_path / 'disk' / 'real')
    with new_folder(link) as (new, scratch):
        assert scratch.parent == tmp_path / 'disk'
        (new / 'file').write_text('x')
    assert link.is_symlink() and [p.name for p in (tmp_path / 'disk' / 'real').iterdir()] == ['file']
    assert [p.name for p in (tmp_path / 'disk').iterdir()] == ['real']


@pytest.mark.parametrize('link', [False, True])
@pytest.mark.parametrize('name', ['../{}', 'a/../../{}', r'a\..\..\{}', '{root}/{}', 'C:/{}', r'\\host\share\{}'])
def test_nothing_is_put_outside_of_the_new_folder(name, link, tmp_path):
    """Whatever a converter makes of what stands in an archive."""
    sources = write_folder(tmp_path / 'src', {'x.jpg': picture(0), 'x.png': mask([0, 1])})
    image, label = SourceFile(str(sources / 'x.jpg')), SourceFile(str(sources / 'x.png'))
    target, options = name.format('out.png', root=tmp_path), preparation.Options(link=link)
    table = LabelTable.unchanged(range(2), expected='0 or 1')
    (tmp_path / 'in').mkdir()
    for work in (
        lambda new: preparation.copy_images([sources], [(image, target)], new, options, 'x'),
        lambda new: preparation.convert_pairs(
            [sources], [preparation.Pair(image, label, target, 'y.png')], new, table, options, 'x'
        ),
        lambda new: preparation.convert_pairs(
            [sources], [preparation.Pair(image, label, None, target)], new, table, options, 'x'
        ),
    ):
        refused = pytest.raises(PreparationError, match='points outside of the new folder')
        with refused, new_folder(tmp_path / 'in' / 'dst') as (new, _):
            work(new)
    assert not list(tmp_path.rglob('*out.png')) and not list((tmp_path / 'in').iterdir())


@pytest.mark.parametrize('form', ['folder', 'zip', 'w', 'w:gz'])
def test_links_lead_to_what_stays(form, tmp_path):
    """Not into an archive, nor to what was unpacked for this run only."""
    source = tmp_path / 'source'
    files = {'a/0.jpg': picture(0)}
    if form in ('folder', 'zip'):
        (write_folder if form == 'folder' else write_zip)(source, files)
    else:
        source.write_bytes(tar_bytes(files, form))
    with new_folder(tmp_path / 'dst') as (new, scratch):
        ((name, file),) = collect_files([source], scratch)
        preparation.copy_images([source], [(file, name)], new, preparation.Options(link=True), 'x')
    written = tmp_path / 'dst' / 'a' / '0.jpg'
    assert written.is_symlink() == (form == 'folder')
    assert written.read_bytes() == files['a/0.jpg']


def test_full_disk(tmp_path, monkeypatch):
    """Told before anything is written; links take no room."""
    monkeypatch.setattr(writing.shutil, 'disk_usage', lambda path: type('Usage', (), dict(free=2**30)))
    (tmp_path / 'small').write_bytes(b'x' * 100)
    files = [SourceFile('a.zip', 'm', None, 2**30), SourceFile(str(tmp_path / 'small'))]
    writing.check_space(files[1:], tmp_path / 'scratch' / 'new', link=False)
    with pytest.raises(PreparationError, match=r'1.0 GiB free, but the data set takes 1.0 GiB; --link links'):
        writing.check_space(files, tmp_path / 'scratch' / 'new', link=False)
    monkeypatch.setattr(writing.shutil, 'disk_usage', lambda path: type('Usage', (), dict(free=50)))
    writing.check_space(files[1:], tmp_path / 'scratch' / 'new', link=True)


def _scaled(factor, x):
    return factor * x, os.getpid()


def test_run_parallel_keeps_the_order():
    for nproc, processes in ((1, 1), (3, 3)):
        results = run_parallel(partial(_scaled, 2), list(range(100)), nproc, 'x')
        assert [value for value, _ in results] == list(range(0, 200, 2))
        assert 1 <= len({pid for _, pid in results}) <= processes
    assert {pid for _, pid in run_parallel(partial(_scaled, 2), list(range(20)), 8, 'x')} == {os.getpid()}


def test_everything_exported_exists():
    assert all(hasattr(preparation, name) for name in preparation.__all__)
