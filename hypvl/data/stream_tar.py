"""The samples of a TAR that is read once from its beginning to its end, compressed or not.

The headers are read as :func:`hypvl.io.tar.walk_tar` reads those of an indexed TAR, so that damage is never taken for
the end: what cannot be read is a sample with a reason in place of members.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast

from hypvl.data.tar_index import MAX_SAMPLE, split_name
from hypvl.errors import DataError
from hypvl.io.redact import printable
from hypvl.io.tar import Forward, TarDamageError, walk_tar

_OPENERS: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open),
)  # fmt: skip
_READ_AT_ONCE = 4 << 20  # bytes
_NAME = "shard"


def stream_samples(stream: Any) -> Iterator[tuple[str, Mapping[str, bytes] | str]]:
    """(key, members by extension, or why there are none) of each sample; its members are neighbours.

    ``stream`` has ``read(size)``; it is read to its end, also behind the end of the TAR. Where the TAR is damaged, the
    rest of it is one sample with the key ``(rest)``.

    Raises:
        OSError: as raised by the stream, but not for damage of a compressed one.
    """
    source = _Source(stream)
    forward = Forward(_decompressed(source))
    group = _Group("", {})
    damage: str | None = None
    try:
        for member in walk_tar(forward.read_at, _NAME):
            split = split_name(member.name) if member.kind in ("file", "sparse") else None
            if split is None:
                continue
            key, extension = split
            if (
                key != group.key or extension in group.members
            ):  # the same again is another sample of that name
                yield from group.sample()
                group = _Group(key, {})
            if member.kind == "sparse":
                group.reason = "is a sparse file, which is not read"
                group.members[extension] = b""
                continue
            group.size += member.size
            if group.size > MAX_SAMPLE:
                group.reason = (
                    f"its members have {group.size} bytes, more than the {MAX_SAMPLE} of an image-text pair"
                )
                group.members = dict.fromkeys((*group.members, extension), b"")
                continue
            content = forward.read(member.size)
            if len(content) < member.size:
                group.reason = f"cut off inside {printable(member.name)}"
                raise TarDamageError(group.reason)
            group.members[extension] = content
    except (TarDamageError, DataError) as error:
        damage = str(error).removeprefix(f"{_NAME}: ")
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        damage = str(error) or type(error).__name__
    except OSError as error:
        if source.failed is error:
            raise
        damage = str(error)  # of bz2, for damaged data
    yield from group.sample()
    while source.read(_READ_AT_ONCE):  # a command whose output is not taken fails
        pass
    if damage is not None:  # and the command has not failed, which would explain it
        yield "(rest)", f"damaged TAR: {printable(damage, limit=100)}"


class _Group:
    """A sample while its members come."""

    def __init__(self, key: str, members: dict[str, bytes]) -> None:
        self.key, self.members = key, members
        self.size = 0
        self.reason: str | None = None

    def sample(self) -> Iterator[tuple[str, Mapping[str, bytes] | str]]:
        """The sample, if it has members."""
        if self.members or self.reason is not None:
            yield self.key, self.members if self.reason is None else self.reason


class _Source(io.RawIOBase):
    """A stream as a raw file, which remembers an error of its own: decompressors raise OSError, too."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failed: OSError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            data = self._stream.read(len(buffer))
        except OSError as error:
            self.failed = error
            raise
        buffer[: len(data)] = data
        return len(data)


def _decompressed(source: _Source) -> BinaryIO:
    buffered = io.BufferedReader(source, _READ_AT_ONCE)
    begin = buffered.peek(6)
    opener = next((opener for magic, opener in _OPENERS if begin.startswith(magic)), None)
    return cast(BinaryIO, buffered if opener is None else opener(buffered))
