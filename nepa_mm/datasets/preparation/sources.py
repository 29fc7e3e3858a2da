"""The files of a published data set where they lie: in folders, zips and tars, read without unpacking."""

import io
import lzma
import os
import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NoReturn

# What file managers leave in folders and archives.
_JUNK = re.compile(r'(^|/)(__MACOSX/|\.)')
# Bytes copied at a time out of a compressed tar.
_PIECE = 1 << 20
# What an archive may unpack to: images hardly shrink, and lists and label maps never to less than a hundredth.
_MOST_FOLD, _ALWAYS_ALLOWED = 100, 1 << 30
# What the published zips use. Python unpacks those of other methods without looking at how much that becomes.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Long names and times of a tar's member take less; tarfile holds all of it in memory.
_LONGEST_HEADER = 1 << 20
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class PreparationError(ValueError):
    """What was given is not the data set in a form that the tool knows; says what is wrong."""


class _TarInfo(tarfile.TarInfo):
    """A header of a tar, refused where tarfile would fill the memory with it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> '_TarInfo':
        """Take a block apart."""
        info = super().frombuf(buf, encoding, errors)
        if info.type == tarfile.GNUTYPE_SPARSE:
            _refuse_holes(info.name)
        if info.type in _HEADERS and info.size > _LONGEST_HEADER:
            raise PreparationError(
                f'{info.name!r}, the header of a tar member, takes {info.size / 1e6:,.1f} MB; do not trust this archive'
            )
        return info

    def _proc_gnusparse_10(self, *_: object) -> NoReturn:
        # Its list of holes stands in the data, of any length.
        _refuse_holes(self.name)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source; cheap to hand to another process.

    Args:
        path: The file on disk, or the archive that holds it.
        member: Its name in the archive; None for a file on disk.
        offset: Where its bytes begin in an uncompressed tar; None in a zip.
        length: How many they are there.
        temporary: Whether the file on disk was unpacked for this run only.
    """

    path: str
    member: str | None = None
    offset: int | None = None
    length: int | None = None
    temporary: bool = False

    @property
    def linkable(self) -> bool:
        """Whether a link to it leads somewhere when the run is over."""
        return self.member is None and not self.temporary

    def __str__(self) -> str:
        return self.path if self.member is None else f'{self.path}: {self.member}'

    def size(self) -> int:
        """Bytes of the file, unpacked."""
        return self.length if self.length is not None else os.stat(self.path).st_size

    def read(self) -> bytes:
        """All bytes of the file.

        Raises:
            PreparationError: If it cannot be read, or its archive is damaged.
        """
        try:
            if self.member is None:
                return Path(self.path).read_bytes()
            if self.offset is None:
                with _open_zip(self.path).open(self.member) as stream:
                    # No more than the index says; the member may hold another number of bytes.
                    data = stream.read(self.size() + 1)
            else:
                with open(self.path, 'rb') as tar:
                    tar.seek(self.offset)
                    data = tar.read(self.length)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            # zipfile raises RuntimeError for encrypted members, NotImplementedError for methods that it lacks.
            raise PreparationError(f'{self}: cannot be read ({error}); the archive may be damaged') from error
        if len(data) != self.length:
            raise PreparationError(f'{self}: the archive ends inside it; copy or download it again')
        return data


def collect_files(sources: Sequence[str | os.PathLike], scratch: Path) -> list[tuple[str, SourceFile]]:
    """List the files of folders and archives.

    Args:
        sources: Folders, zips, tars. Of a tar of tars the inner ones are listed too.
        scratch: Folder for what cannot be read in place (compressed tars); made when needed.

    Returns:
        Sorted by name: path inside the source with forward slashes, and the file. The same name may come up in
        several sources.

    Raises:
        PreparationError: If a source is missing, damaged or no archive, or a member's name leaves its folder, or a
            member is a link or a device, has holes, a header of more than a megabyte or (in a zip) another method than
            deflate, or the archive would unpack to more than a hundred times its size (beyond a gigabyte).
    """
    # A zip of the same name may be another one by now.
    _open_zip.cache_clear()
    files: list[tuple[str, SourceFile]] = []
    for number, source in enumerate(map(Path, sources)):
        if source.is_dir():
            found = _list_folder(source)
        elif not source.exists():
            raise PreparationError(f'{source} does not exist; give the folder or the archive as it was downloaded')
        elif zipfile.is_zipfile(source):
            found = _list_zip(source)
        else:
            found = _list_tar(source, scratch / str(number))
        files += ((name, file) for name, file in found if not _JUNK.search(name))
    return sorted(files, key=lambda item: item[0])


def match_files(files: Iterable[tuple[str, SourceFile]], pattern: str) -> dict[tuple[str, ...], SourceFile]:
    """Pick files by name.

    Args:
        files: From :func:`collect_files`.
        pattern: Regular expression of the end of the name; begins at a folder's or the file's name.

    Returns:
        Per match, its groups and the file.

    Raises:
        PreparationError: If two files have the same groups.
    """
    expression = re.compile(rf'(?:^|/){pattern}$')
    found: dict[tuple[str, ...], SourceFile] = {}
    for name, file in files:
        if match := expression.search(name):
            if match.groups() in found:
                raise PreparationError(f'given twice: {found[match.groups()]} and {file}; leave one out')
            found[match.groups()] = file
    return found


def _checked(name: str, source: Path) -> str:
    """A member's name, if it stays inside the folder that it would be unpacked into."""
    plain = posixpath.normpath(name.replace('\\', '/'))
    if plain.startswith(('/', '../')) or plain == '..' or re.match(r'[A-Za-z]:', plain):
        raise PreparationError(f'{source}: member {name!r} points outside of its folder; do not trust this archive')
    return plain


def _refuse_special(name: str, source: Path) -> NoReturn:
    raise PreparationError(f'{source}: member {name!r} is a link or a device; the published archives hold only files')


def _refuse_holes(name: str) -> NoReturn:
    raise PreparationError(
        f'tar member {name!r} has holes (a sparse file); the published archives hold only whole ones'
    )


def _check_member(member: tarfile.TarInfo, source: Path) -> None:
    """Refuse what is no plain file or folder, or says impossible things of itself."""
    if member.issparse():
        _refuse_holes(member.name)
    if not (member.isreg() or member.isdir()) or member.size < 0:
        _refuse_special(member.name, source)


def _list_folder(folder: Path) -> Iterator[tuple[str, SourceFile]]:
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            path = os.path.join(parent, name)
            yield os.path.relpath(path, folder).replace(os.sep, '/'), SourceFile(path)


@lru_cache(maxsize=8)
def _open_zip(path: str) -> zipfile.ZipFile:
    """One open handle per process: reading the index of a large zip takes seconds."""
    return zipfile.ZipFile(path)


# A child made by fork shares the parent's file position: it opens its own.
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_open_zip.cache_clear)


def _list_zip(source: Path) -> Iterator[tuple[str, SourceFile]]:
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise PreparationError(f'{source} is damaged or cut short ({error}); download it again') from error
    _check_size(sum(member.file_size for member in members), source)
    for member in members:
        name = _checked(member.filename, source)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            _refuse_special(member.filename, source)
        if member.compress_type not in _METHODS:
            raise PreparationError(
                f'{source}: member {member.filename!r} is compressed by method {member.compress_type}, which the '
                'published zips do not use; pack the files anew, with "deflate"'
            )
        if not member.is_dir():
            yield name, SourceFile(str(source), member.filename, length=member.file_size)


def _list_tar(source: Path, scratch: Path) -> Iterator[tuple[str, SourceFile]]:
    """List an uncompressed tar in place; unpack a compressed one, which cannot be read out of order."""
    with source.open('rb') as stream:
        head = stream.read(512)
    if head.lstrip()[:1] == b'<':
        raise PreparationError(f'{source} is a web page, no archive; log in and download the file itself')
    try:
        if _is_plain_tar(source):
            with source.open('rb') as stream:
                yield from _index_tar(stream, source)
        else:
            with tarfile.open(source, tarinfo=_TarInfo) as archive:
                _unpack(archive, source, scratch)
                # The checksum of the compressed whole is compared where it ends.
                while archive.fileobj is not None and archive.fileobj.read(_PIECE):
                    pass
            yield from ((name, replace(file, temporary=True)) for name, file in _list_folder(scratch))
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RecursionError) as error:
        raise PreparationError(
            f'{source} is no folder, zip or tar, or is damaged or cut short ({error}); download it again'
        ) from error


def _is_plain_tar(source: Path) -> bool:
    try:
        with tarfile.open(source, 'r:', tarinfo=_TarInfo):
            return True
    except tarfile.ReadError:
        return False


def _index_tar(stream: BinaryIO, source: Path, start: int = 0, inside: str = '') -> Iterator[tuple[str, SourceFile]]:
    """Find the members of a tar that begins at ``start`` of the stream, and of the tars in it."""
    stream.seek(start)
    with tarfile.open(fileobj=_From(stream, start), mode='r:', tarinfo=_TarInfo) as archive:
        for member in archive:
            name = _checked(member.name, source)
            _check_member(member, source)
            if member.isdir():
                continue
            offset = start + member.offset_data
            if name.endswith('.tar'):
                yield from _index_tar(stream, source, offset, f'{inside}{name[:-4]}/')
            else:
                yield inside + name, SourceFile(str(source), inside + name, offset, member.size)
        # tarfile ends in silence where a header is damaged or missing.
        stream.seek(start + archive.offset)
        if stream.read(512).strip(b'\0'):
            raise tarfile.ReadError(f'no tar header at byte {start + archive.offset}')
        if stream.tell() < start + archive.offset + 512:
            raise tarfile.ReadError('the end mark is missing')


class _From(io.RawIOBase):
    """A stream from some byte of another one."""

    def __init__(self, stream: BinaryIO, start: int) -> None:
        self.stream, self.start, self.position = stream, start, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self.position
        elif whence == os.SEEK_END:
            offset += self.stream.seek(0, os.SEEK_END) - self.start
        self.position = offset
        return offset

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        # The stream is shared with the tars inside, so its own position means nothing here.
        self.stream.seek(self.start + self.position)
        data = self.stream.read(size)
        self.position += len(data)
        return data


def _check_size(unpacked: int, source: Path) -> None:
    packed = source.stat().st_size
    if unpacked > max(_ALWAYS_ALLOWED, _MOST_FOLD * packed):
        raise PreparationError(
            f'{source} would unpack from {packed / 1e6:,.1f} MB to {unpacked / 1e9:,.1f} GB or more, as no data set of '
            'images does; do not trust this archive'
        )


def _unpack(archive: tarfile.TarFile, source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for member in archive:
        name = _checked(member.name, source)
        _check_member(member, source)
        _check_size(archive.offset, source)  # where it ends, headers included; before it is written
        if member.isdir() or _JUNK.search(name):
            continue
        stream = archive.extractfile(member)
        assert stream is not None, member.name
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open('wb') as copy:
            while piece := stream.read(_PIECE):
                copy.write(piece)
