"""The headers of TAR files: where each member lies, read within bounds, whatever the file holds.

``tarfile`` reads headers of any length into memory and stops at the first end mark; training and unpacking need
places, bounds, and all of the archives that were joined into one file.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal, NamedTuple

from hypvl.checks import natural_number
from hypvl.errors import DataError

BLOCK = 512
#: Bytes that the headers of one member may have (long names, extended headers).
LONGEST_HEADERS = 1 << 21
_LONGEST_RECORD = 1 << 20
_SCAN = 1 << 16  # bytes looked at together behind an end mark
_CHUNK = 1 << 20
_LARGEST = 1 << 62  # bytes of a member: offsets stay 64-bit numbers
# Members of these types have no content, whatever size their header gives.
_WITHOUT_CONTENT = (
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
)  # fmt: skip

#: (offset, length) -> that part of the file; shorter at its end
Read = Callable[[int, int], bytes]
Kind = Literal["file", "folder", "sparse", "other"]


class TarMember(NamedTuple):
    """One member."""

    name: str  # as it stands in the file; bytes that are not UTF-8 are surrogates
    kind: Kind  # "other" = a link, a device or of an unknown kind
    begin: int  # where its headers begin
    offset: int  # where its content begins
    size: int  # bytes of its content


class TarDamageError(Exception):
    """The TAR cannot be read beyond this point; the message says why."""


def walk_tar(read: Read, name: str) -> Iterator[TarMember]:
    """The members of a TAR, in order; of several that were joined (``cat a.tar b.tar``), one after the other.

    Each request to ``read`` lies at or behind the one before; messages call the file ``name``.

    Raises:
        DataError: when it is not a TAR at all, or compressed.
        TarDamageError: at the first fault.
    """
    at = begin = 0
    joined = 0  # where the latest TAR of several begins
    long_name: str | None = None
    long_size: int | None = None
    sparse = False
    while True:
        block = read(at, BLOCK)
        if at == 0 and block[:2] == b"\x1f\x8b":
            raise DataError(
                f"{name}: is compressed with gzip, which allows no random access; unpack it (gunzip) and name "
                "the .tar."
            )
        if len(block) < BLOCK:
            where = "the end mark is missing" if not block else "inside a header"
            raise TarDamageError(f"cut off at byte {at + len(block)}, {where}")
        if not any(block):
            following = _behind_end_mark(read, at + BLOCK)
            if following is None:
                return
            at = begin = joined = following
            continue
        header = _header(block, at, joined, name)
        length = 0 if header.type in _WITHOUT_CONTENT else header.size
        if header.isreg() and long_size is not None:
            length = long_size
        extended = header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
        if not 0 <= length < _LARGEST or (extended and length > _LONGEST_RECORD):
            raise TarDamageError(f"damaged at byte {at} (a length of {length} bytes)")
        content = at + BLOCK
        if header.type == tarfile.GNUTYPE_SPARSE:
            content = _behind_sparse_map(read, block, content)
        at = content + -(-length // BLOCK) * BLOCK
        if extended:
            extra = read(content, length)
            if len(extra) < length:
                raise TarDamageError(f"cut off at byte {content + len(extra)}, inside a header")
            if header.type == tarfile.GNUTYPE_LONGNAME:
                long_name = extra.rstrip(b"\0").decode("utf-8", "surrogateescape")
            else:
                fields = _pax_fields(extra)
                long_name = fields.get("GNU.sparse.name", fields.get("path", long_name))
                if "size" in fields:
                    size = natural_number(fields["size"], digits=19)
                    long_size = -1 if size is None else size
                sparse = sparse or any(key.startswith("GNU.sparse.") for key in fields)
        elif header.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            if content - begin > LONGEST_HEADERS:
                raise TarDamageError(f"damaged at byte {begin} (headers of {content - begin} bytes)")
            kind: Kind = "file" if header.isreg() else "folder" if header.isdir() else "other"
            if sparse or header.type == tarfile.GNUTYPE_SPARSE:
                kind = "sparse"
            yield TarMember(header.name if long_name is None else long_name, kind, begin, content, length)
            long_name, long_size, sparse, begin = None, None, False, at
        elif long_name is None and long_size is None and not sparse:
            begin = at


class Forward:
    """A stream read at offsets that never decrease."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0  # offset of the buffer
        self._buffer = b""
        self._next = 0  # offset behind what was read last: after the headers of a member, its content

    def read(self, length: int) -> bytes:
        """What follows; shorter at the end."""
        return self.read_at(self._next, length)

    def read_at(self, offset: int, length: int) -> bytes:
        """That part; shorter at the end."""
        while offset > self._at + len(self._buffer):
            self._at += len(self._buffer)
            self._buffer = self._stream.read(min(_CHUNK, offset - self._at))
            if not self._buffer:
                return b""
        self._buffer = self._buffer[offset - self._at :]
        self._at = offset
        parts = [self._buffer]
        missing = length - len(self._buffer)
        while missing > 0 and (part := self._stream.read(missing)):
            parts.append(part)
            missing -= len(part)
        self._buffer = b"".join(parts)
        result = self._buffer[:length]
        self._next = offset + len(result)
        return result


def member_at(data: bytes) -> TarMember | None:
    """The member whose headers are at the beginning of some bytes, as :func:`walk_tar` reads them; or None."""
    header = _plain_header(data[:BLOCK]) if len(data) >= BLOCK else None
    if header is not None:
        return TarMember(header.name, "file", 0, BLOCK, header.size)
    try:
        return next(walk_tar(lambda offset, length: data[offset : offset + length], ""), None)
    except (TarDamageError, DataError):
        return None


def _header(block: bytes, at: int, joined: int, name: str) -> tarfile.TarInfo:
    try:
        return _plain_header(block) or tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        if at == 0:
            raise DataError(
                f"{name}: is not a TAR file ({error}); remove it or download it again."
            ) from error
        if at == joined:
            raise TarDamageError(
                f"what follows its end mark at byte {at} is not another TAR ({error})"
            ) from error
        raise TarDamageError(f"damaged at byte {at} ({error})") from error


def _behind_end_mark(read: Read, at: int) -> int | None:
    """The first block behind an end mark that is not empty, or None: where a TAR was appended another begins."""
    while chunk := read(at, _SCAN):
        empty = len(chunk) - len(chunk.lstrip(b"\0"))
        if empty < len(chunk):
            return at + empty // BLOCK * BLOCK
        at += len(chunk)
    return None


def _behind_sparse_map(read: Read, header: bytes, at: int) -> int:
    """Where the content of an old GNU sparse member begins: its map goes on in blocks of its own."""
    more, begin = header[482], at
    while more:
        block = read(at, BLOCK)
        if len(block) < BLOCK or at - begin > LONGEST_HEADERS:
            raise TarDamageError(f"cut off at byte {at + len(block)}, inside the map of a sparse member")
        more, at = block[504], at + BLOCK
    return at


def _plain_header(block: bytes) -> tarfile.TarInfo | None:
    """The header of a regular file with nothing special in it, else None: for tarfile to look at.

    Reads three of the thirteen fields, which makes indexing some three times faster.
    """
    size, checksum = block[124:136].strip(b" \0"), block[148:156].strip(b" \0")
    name = block[:100].partition(b"\0")[0]
    plain = (
        block[156:157] == tarfile.REGTYPE
        and not block[345]
        and name
        and size.isdigit()
        and checksum.isdigit()
    )
    try:
        if not plain or sum(block) - sum(block[148:156]) + 8 * 0x20 != int(checksum, 8):
            return None
        header = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
        header.size = int(size, 8)
    except ValueError:  # an 8 or a 9
        return None
    return header


def _pax_fields(data: bytes) -> dict[str, str]:
    """Records "length key=value\\n" of an extended header."""
    fields: dict[str, str] = {}
    at = 0
    while (space := data.find(b" ", at, at + 10)) > at:
        length = int(data[at:space]) if data[at:space].isdigit() else 0
        key, mark, value = data[space + 1 : max(space + 1, at + length - 1)].partition(b"=")
        if not mark:
            raise TarDamageError(f"damaged extended header (a record of length {data[at:space]!r})")
        fields[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at += length
    return fields


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file; time, owner and group stay 0, so that the bytes of the TAR depend on its content only."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
