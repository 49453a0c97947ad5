"""A SHA-256 of a whole ZIP archive, kept in the comment at its end: every changed byte is found, also between members.

The CRC-32 of a member covers its content, not headers, padding and the table of contents. Readers of archives, also
``torch.load``, skip the comment.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

from hypvl.io.files import open_regular

_END = (
    b"PK\x05\x06"  # begins the record that ends an archive; its last 2 of 22 bytes are the comment's length
)
_END_BYTES = 22
_COMMENT = re.compile(rb"sha256:([0-9a-f]{64})")
_COMMENT_BYTES = 71
_LONGEST = _END_BYTES + 0xFFFF
_CHUNK = 1 << 22


class ChecksumWriter:
    """A file for ``torch.save``: passes on what is written, and :meth:`finish` adds the checksum.

    A failed write is remembered in ``error``, because ``torch.save`` reports another one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._held = b""  # the last bytes: those of the record that ends the archive
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes. Raises OSError."""
        view = memoryview(data).cast("B")
        if len(view) < _END_BYTES:
            joined = self._held + bytes(view)
            self._held = joined[-_END_BYTES:]
            self._pass_on(joined[:-_END_BYTES])
        else:
            self._pass_on(self._held)
            self._held = bytes(view[-_END_BYTES:])
            self._pass_on(view[:-_END_BYTES])
        return len(view)

    def flush(self) -> None:
        """Part of the interface that ``torch.save`` needs."""
        self._file.flush()

    def finish(self) -> None:
        """Write the end. Raises OSError, and ValueError when no archive without a comment was written."""
        if len(self._held) < _END_BYTES or not self._held.startswith(_END) or self._held[-2:] != b"\0\0":
            raise ValueError("no ZIP archive was written, or one with a comment")
        self._pass_on(self._held[:-2] + _COMMENT_BYTES.to_bytes(2, "little"))
        self._file.write(b"sha256:" + self._digest.hexdigest().encode())

    def _pass_on(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise


def stated_checksum(path: Path) -> str | None:
    """The SHA-256 that an archive states in its comment; None for one that states none. It is not compared.

    Raises:
        ValueError: when the end of the file was changed, or is missing.
        OSError: when it cannot be read.
    """
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST))
        tail = file.read()
    stated = _COMMENT.fullmatch(tail[-_COMMENT_BYTES:])
    at = len(tail) - _COMMENT_BYTES - _END_BYTES if stated is not None else tail.rfind(_END)
    if at < 0 or tail[at : at + 4] != _END or at + _END_BYTES > len(tail):
        raise ValueError("its end is missing")
    comment = len(tail) - at - _END_BYTES
    if int.from_bytes(tail[at + _END_BYTES - 2 : at + _END_BYTES], "little") != comment:
        raise ValueError("its end was changed")
    if stated is not None:
        return stated[1].decode()
    if comment == _COMMENT_BYTES:
        raise ValueError("its checksum was changed")
    return None


def computed_checksum(path: Path) -> str:
    """The SHA-256 of an archive that states one, without the comment. Raises OSError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        left = file.seek(0, os.SEEK_END) - _COMMENT_BYTES
        file.seek(0)
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
