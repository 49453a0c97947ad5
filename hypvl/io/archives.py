"""Archives unpacked safely: nothing outside the folder, no links, and no more bytes than an archive can hold."""

import bz2
import contextlib
import errno
import gzip
import hashlib
import lzma
import os
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, cast

from hypvl.checks import one_of
from hypvl.errors import DataError
from hypvl.io.files import file_digest, open_new, open_regular
from hypvl.io.redact import printable
from hypvl.io.tar import Forward, TarDamageError, walk_tar
from hypvl.io.zip_checksum import computed_checksum, stated_checksum

Archive = Literal["tar", "zip", "gz"]

#: Bytes and members that an archive may hold.
MAX_UNPACKED = 1 << 41
MAX_MEMBERS = 5_000_000
# Images compress to about their own size and texts to a twentieth: a larger ratio is an attack.
_MAX_RATIO = 200
_FREE_GROWTH = 1 << 28
_CHUNK = 1 << 20
_DIRECTORY = 0x10  # MS-DOS attribute of a directory
_DEEPEST = 64
_MAGIC: tuple[tuple[bytes, type], ...] = (
    (b"\x1f\x8b", gzip.GzipFile),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
)
_DAMAGED = (
    TarDamageError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile, ValueError,
    RuntimeError, NotImplementedError, IndexError,
)  # fmt: skip


class UnsafeArchiveError(DataError):
    """An archive would write where it may not, or more than it may; nothing of it was unpacked."""


def unpack(archive: Path, folder: Path, *, kind: Archive, name: str | None = None) -> None:
    """Unpack into a folder; members appear there only when all could be read.

    Nothing is written outside ``folder``, which is made if needed: only files and folders are taken, each under a name
    that was checked before. Links, devices, absolute paths and ``..`` are refused, so are folders in the place that are
    links out of it, and archives that hold more than bounds allow or 200 times their own size. What is there already
    stays, or is replaced by members of the same name.

    Args:
        kind: ``"tar"`` (compressed or not; several joined into one are all read), ``"zip"``, or ``"gz"`` for a single
            compressed file.
        name: The file a ``"gz"`` becomes.

    Raises:
        UnsafeArchiveError: saying which member is refused.
        DataError: when it is damaged, or cannot be written.
    """
    one_of("kind", kind, Archive)
    try:
        with open_regular(archive) as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{archive}: cannot be read ({error.strerror}).") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as temporary:
            max_bytes = min(MAX_UNPACKED, _MAX_RATIO * size + _FREE_GROWTH)
            writer = _Writer(archive, Path(temporary), max_bytes)
            if kind == "tar":
                _untar(archive, writer)
            elif kind == "zip":
                _unzip(archive, writer)
            else:
                with gzip.open(archive) as source:
                    writer.file(name or archive.stem, source.read, None)
            root = folder.resolve()
            for child in sorted(Path(temporary).iterdir()):
                _move(child, folder / child.name, root)
    except _DAMAGED as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}); choose a folder with space."
        ) from error


class _Writer:
    """Writes the members of one archive into an empty folder, within bounds over all of them."""

    def __init__(self, archive: Path, folder: Path, max_bytes: int) -> None:
        self._archive = archive
        self._folder = folder
        self._root = folder.resolve()
        self._bytes, self._max_bytes = 0, max_bytes
        self._members = 0

    def refuse(self, why: str) -> UnsafeArchiveError:
        return UnsafeArchiveError(f"{self._archive}: is unsafe to unpack ({why}); do not use it.")

    def folder(self, name: str) -> None:
        """Make a folder."""
        with self._no_clash(name):
            self._place(name).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, read: Callable[[int], bytes], size: int | None) -> None:
        """Write a file of so many bytes; None = as many as there are."""
        path = self._place(name)
        if path == self._folder:
            raise self.refuse(f"{_shown(name)} is not the name of a file")
        if size is not None and self._bytes + size > self._max_bytes:
            raise self._too_much()
        with self._no_clash(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()  # the latest member of a name counts
        left = size
        with open_new(path) as file:
            while left != 0:
                chunk = read(_CHUNK if left is None else min(_CHUNK, left))
                if not chunk:
                    break
                self._bytes += len(chunk)
                if self._bytes > self._max_bytes:
                    raise self._too_much()
                file.write(chunk)
                left = None if left is None else left - len(chunk)
        if left:
            raise EOFError(f"{_shown(name)} ends {left} bytes early")

    def _place(self, name: str) -> Path:
        """Where a member goes: below the folder, which is checked again when the parts are moved into place."""
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise self.refuse(f"more than {MAX_MEMBERS} members")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise self.refuse(f"{_shown(name)} leads out of the folder")
        if len(parts) > _DEEPEST:
            raise self.refuse(f"{_shown(name)} lies {len(parts)} folders deep")
        path = self._folder.joinpath(*parts)
        if not Path(os.path.realpath(path.parent if parts else path)).is_relative_to(self._root):
            raise self.refuse(f"{_shown(name)} leads out of the folder")
        return path

    @contextlib.contextmanager
    def _no_clash(self, name: str) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise self.refuse(f"{_shown(name)} is a file and a folder") from error

    def _too_much(self) -> UnsafeArchiveError:
        return self.refuse(f"more than {self._max_bytes} bytes come out of {self._archive.stat().st_size}")


def _untar(archive: Path, writer: _Writer) -> None:
    with _decompressed(archive) as stream:
        forward = Forward(stream)
        for member in walk_tar(forward.read_at, str(archive)):
            if member.kind == "folder":
                writer.folder(member.name)
            elif member.kind == "file":
                writer.file(member.name, forward.read, member.size)
            else:
                raise writer.refuse(f"{_shown(member.name)} is a link, a device or a sparse file")


def _unzip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            name = member.filename.replace("\\", "/")
            if re.match(r"[A-Za-z]:", name):
                raise writer.refuse(f"{_shown(name)} leads out of the folder")
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise writer.refuse(f"{_shown(name)} is a link or a device")
            if member.is_dir():
                writer.folder(name)
                continue
            with opened.open(member) as source:
                writer.file(name, source.read, member.file_size)
                source.read(1)  # the end: only there is the CRC-32 compared


def _decompressed(archive: Path) -> BinaryIO:
    with archive.open("rb") as file:
        begin = file.read(8)
    opener = next((opener for magic, opener in _MAGIC if begin.startswith(magic)), None)
    return cast(BinaryIO, archive.open("rb") if opener is None else opener(archive))


def _move(source: Path, target: Path, root: Path) -> None:
    """Rename, merging folders; a folder that is a link out of ``root`` is not entered."""
    if source.is_dir() and target.is_dir():
        if not target.resolve().is_relative_to(root):
            raise UnsafeArchiveError(
                f"{target}: is a link that leads out of {root}; move it away, then try again."
            )
        for child in sorted(source.iterdir()):
            _move(child, target / child.name, root)
        return
    source.replace(target)


def _damaged(archive: Path, error: Exception) -> DataError:
    return DataError(f"{archive}: is damaged ({printable(str(error))}); delete it and download it again.")


def _shown(name: str) -> str:
    return printable(repr(name), limit=120)


def read_zip_member(archive: Path, name: str, *, max_bytes: int = _FREE_GROWTH) -> bytes:
    """One member of a ZIP file, its CRC-32 compared.

    Raises:
        KeyError: when it is not there.
        DataError: when the archive is damaged, or the member larger than ``max_bytes``.
        OSError: when the archive cannot be read.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            size = opened.getinfo(name).file_size
            if size > max_bytes:
                raise UnsafeArchiveError(
                    f"{archive}: {_shown(name)} has {size} bytes, expected at most {max_bytes}; do not use it."
                )
            return opened.read(name)
    except _DAMAGED as error:
        raise _damaged(archive, error) from error


def zip_checksum(path: Path) -> str:
    """A SHA-256 that tells archives apart: the one in its comment, else that of its members' names, sizes and CRC-32s.

    It says nothing about damage (:func:`zip_damage`). A file that is no archive gives the SHA-256 of its bytes.

    Raises:
        OSError: when it cannot be read.
    """
    try:
        stated = stated_checksum(path)
        if stated is not None:
            return stated
        with zipfile.ZipFile(path) as archive:
            members = [(member.filename, member.file_size, member.CRC) for member in archive.infolist()]
    except _DAMAGED:
        return file_digest(path, "sha256")
    return hashlib.sha256(repr(members).encode()).hexdigest()


def zip_damage(path: Path) -> str | None:
    """What is wrong with an archive, "data/3 was changed after it was written", or None for a whole one.

    One with a checksum of the whole file (:mod:`hypvl.io.zip_checksum`), as hypvl writes them, is compared with that:
    every change is found. Of any other, every member is compared with its CRC-32. A file written by ``torch.save`` is
    such an archive, whose CRCs were computed from memory while it was written; ``torch.load`` does not look at them. A
    CRC-32 finds every change of up to 32 neighbouring bits, but none between members.

    Raises:
        OSError: when it cannot be read.
    """
    try:
        stated = stated_checksum(path)
        if stated is not None and computed_checksum(path) == stated:
            return None
        changed = _changed_member(path) or (None if stated is None else "it was changed after it was written")
        return None if changed is None else printable(changed)
    except (*_DAMAGED, OverflowError, struct.error) as error:
        return f"no whole ZIP archive: {printable(str(error) or type(error).__name__)}"
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place that no file has, in a damaged table of contents
            raise
        return "no whole ZIP archive: its table of contents is damaged"


def _changed_member(path: Path) -> str | None:
    """The first member whose content is not that of its CRC-32, and what is wrong with it."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir() or member.external_attr & _DIRECTORY:
                return f"{member.filename} should be a file"
        changed = archive.testzip()
    return (
        None
        if changed is None
        else f"{changed.partition('/')[2] or changed} was changed after it was written"
    )
