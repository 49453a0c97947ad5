"""An index of a TAR: which samples it holds and where their members lie, so that any of them can be read.

Built once by walking the headers, kept as a small file, valid as long as the TAR's size and date (or ETag) are
the same. Members belong to one sample when their names agree up to the first dot of the file name (the
WebDataset convention; folders stay in the key).
"""

import dataclasses
import hashlib
import io
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from hypvl.errors import DataError
from hypvl.io.arrays import read_npy
from hypvl.io.files import open_regular, write_atomically
from hypvl.io.json_text import parse_json
from hypvl.io.redact import printable
from hypvl.io.tar import LONGEST_HEADERS, Read, TarDamageError, TarMember, member_at, walk_tar

_FORMAT = 2
#: Bytes that the members of a sample may have together: larger ones are not images and texts.
MAX_SAMPLE = 1 << 29
_NAME = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]+)$")
_ARRAYS = ("starts", "offsets", "sizes", "extensions", "key_ends", "keys")
_KINDS = {
    **dict.fromkeys(("starts", "offsets", "sizes", "key_ends"), np.int64),
    "extensions": np.uint16,
    "keys": np.uint8,
    "leads": np.uint32,
}


@dataclasses.dataclass(frozen=True)
class TarIndex:
    """N samples of one TAR and their M members. A sample without members stands for what cannot be read: lost where the
    TAR is damaged, or sparse.
    """

    starts: np.ndarray  # (N + 1,) int64; sample i has the members ``starts[i]:starts[i + 1]``
    offsets: np.ndarray  # (M,) int64, first byte of each member's content
    sizes: np.ndarray  # (M,) int64, bytes
    extensions: np.ndarray  # (M,) uint16, into ``extension_names``
    key_ends: np.ndarray  # (N,) int64; ``keys[key_ends[i - 1]:key_ends[i]]`` is the key of sample i in UTF-8
    keys: np.ndarray  # uint8
    leads: np.ndarray  # (M,) uint32, bytes of headers before each member's content
    extension_names: tuple[str, ...]  # lower-case, without the dot
    damage: str | None = None  # why the TAR could not be read to its end

    def __len__(self) -> int:
        return len(self.key_ends)

    def key(self, i: int) -> str:
        """The key of sample i."""
        first = int(self.key_ends[i - 1]) if i else 0
        return self.keys[first : int(self.key_ends[i])].tobytes().decode("utf-8", "surrogateescape")

    def places(self, i: int) -> list[tuple[str, int, int, int]]:
        """(extension, begin of its headers, offset, size) of the members of sample i."""
        leads = self.leads[int(self.starts[i]) : int(self.starts[i + 1])].tolist()
        return [
            (name, offset - lead, offset, size)
            for lead, (name, offset, size) in zip(leads, self.members(i), strict=True)
        ]

    def members(self, i: int) -> list[tuple[str, int, int]]:
        """(extension, offset, size) of the members of sample i."""
        return [
            (self.extension_names[int(self.extensions[m])], int(self.offsets[m]), int(self.sizes[m]))
            for m in range(int(self.starts[i]), int(self.starts[i + 1]))
        ]

    @property
    def digest(self) -> str:
        """Hash of all names, places and sizes: what makes this TAR's samples these samples."""
        total = hashlib.sha256(repr((self.extension_names, self.damage)).encode())
        for name in _ARRAYS:
            total.update(getattr(self, name).tobytes())
        return total.hexdigest()


def build_index(read: Read, size: int, name: str) -> TarIndex:
    """Walk the headers of a TAR of ``size`` bytes.

    What is whole is kept; where the file is cut off or damaged, the rest becomes one sample without members.

    Raises:
        DataError: when it is not a TAR at all, or compressed.
    """
    groups: list[_Group] = []
    latest: dict[str, _Group] = {}  # by key: members need not be neighbours
    lost: str | None = None
    damage: str | None = None
    try:
        for member in walk_tar(read, name):
            split = split_name(member.name) if member.kind in ("file", "sparse") else None
            if split is None:
                continue
            key, extension = split
            if member.offset + member.size > size:
                lost = key
                raise TarDamageError(f"cut off at byte {size}, inside {printable(member.name)}")
            group = latest.get(key)
            # the same member again is another sample of that name (two TARs joined)
            if group is None or extension in group.members:
                latest[key] = group = _Group(key)
                groups.append(group)
            group.members[extension] = member
    except TarDamageError as error:
        damage = str(error)
        if lost is None and len(groups) > 1:
            # a last sample that lacks what its neighbour has was cut as well
            last, before = (set(group.members) for group in groups[-1:-3:-1])
            lost = groups[-1].key if last < before else None
        if lost in latest:
            groups.remove(latest[lost])
        groups.append(_Group(lost or "(end of file)"))
    return _pack(groups, damage)


@dataclasses.dataclass(eq=False)
class _Group:
    """A sample while the TAR is walked through: its members by extension."""

    key: str
    members: dict[str, TarMember] = dataclasses.field(default_factory=dict)


def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension), or None for hidden files and names without an extension."""
    match = _NAME.match(name.removeprefix("./"))
    return None if match is None else (match[1], match[2].lower())


def _pack(groups: list[_Group], damage: str | None) -> TarIndex:
    # Sparse members are not read, nor is the sample that has one.
    samples = [
        {} if any(member.kind == "sparse" for member in group.members.values()) else group.members
        for group in groups
    ]
    names = sorted({extension for members in samples for extension in members})
    number = {extension: i for i, extension in enumerate(names)}
    if len(names) > np.iinfo(np.uint16).max:
        raise DataError(f"a TAR with {len(names)} different extensions; expected a handful per sample.")
    flat = [item for members in samples for item in members.items()]
    keys = [group.key.encode("utf-8", "surrogateescape") for group in groups]
    return TarIndex(
        starts=np.cumsum([0, *map(len, samples)], dtype=np.int64),
        offsets=np.array([member.offset for _, member in flat], dtype=np.int64),
        sizes=np.array([member.size for _, member in flat], dtype=np.int64),
        extensions=np.array([number[extension] for extension, _ in flat], dtype=np.uint16),
        key_ends=np.cumsum([len(key) for key in keys], dtype=np.int64),
        keys=np.frombuffer(b"".join(keys), dtype=np.uint8),
        leads=np.array([member.offset - member.begin for _, member in flat], dtype=np.uint32),
        extension_names=tuple(names),
        damage=damage,
    )


class ReadAhead:  # a class, so that it can travel to a worker process
    """The same reader, but it reads at least ``block`` bytes at once and keeps the latest."""

    def __init__(self, read: Read, block: int) -> None:
        self._read, self._block = read, block
        self._start, self._data = 0, b""

    def __call__(self, offset: int, length: int) -> bytes:
        if offset < self._start or offset + length > self._start + len(self._data):
            self._start, self._data = offset, self._read(offset, max(length, self._block))
        begin = offset - self._start
        return self._data[begin : begin + length]

    def __getstate__(self) -> dict[str, Any]:
        return {"_read": self._read, "_block": self._block, "_start": 0, "_data": b""}


class MemberError(ValueError):
    """A sample of a TAR cannot be read; the message says why."""


def read_members(
    read: Read, index: TarIndex, i: int, only: Collection[str] | None = None
) -> dict[str, bytes]:
    """Contents of the members of sample i by extension, in the order of the TAR; of ``only`` these, None = all.

    The TAR's own header before each member must say what the index says: an index that somebody else wrote, or a
    TAR that was overwritten, never passes bytes off as another member.

    Raises:
        MemberError: when members are lost, too large or not what the index says.
        OSError: when the TAR cannot be read.
    """
    places = index.places(i)
    if not places:
        raise MemberError(
            "is a sparse file, which is not read"
            if index.damage is None
            else f"lost with a part of the TAR ({index.damage})"
        )
    places = [place for place in places if only is None or place[0] in only]
    total = sum(size for *_, size in places)
    if total > MAX_SAMPLE:
        raise MemberError(f"its members have {total} bytes, more than the {MAX_SAMPLE} of an image-text pair")
    if not places:
        return {}
    first = min(begin for _, begin, _, _ in places)
    end = max(offset + size for _, _, offset, size in places)
    headers = sum(offset - begin for _, begin, offset, _ in places)
    data = None
    if end - first <= total + headers + 2048 * len(places):  # neighbours: one read
        data = read(first, end - first)
    parts = {}
    for extension, begin, offset, size in places:
        part = (
            read(begin, offset + size - begin)
            if data is None
            else data[begin - first : offset + size - first]
        )
        lead = offset - begin
        if len(part) != lead + size:
            raise MemberError(
                f"{extension} ends after {max(len(part) - lead, 0)} of {size} bytes; the TAR has changed"
            )
        header = member_at(part[:lead])
        fits = header is not None and header.kind == "file" and (header.offset, header.size) == (lead, size)
        if header is None or not fits or split_name(header.name) != (index.key(i), extension):
            raise MemberError(f"{extension} is not where the index says; delete the .hypvl-index of this TAR")
        parts[extension] = part[lead:]
    return parts


def save_index(index: TarIndex, path: Path, identity: dict[str, Any]) -> None:
    """Write an index file, whole or not at all; ``identity`` is that of its TAR (size, date ...). Raises OSError."""
    header = {
        "format": _FORMAT, "identity": identity, "extensions": index.extension_names, "damage": index.damage,
    }  # fmt: skip
    content = io.BytesIO()
    content.write(json.dumps(header).encode() + b"\n")
    for name in _KINDS:
        np.save(content, getattr(index, name), allow_pickle=False)
    content.write(hashlib.sha256(content.getvalue()).digest())
    write_atomically(path, content.getvalue())
    path.chmod(0o644)


def load_index(path: Path, identity: dict[str, Any]) -> TarIndex | None:
    """The index in a file; None for none, one that is damaged, not this user's or of another state of the TAR.

    A file that others could have written is not used: it must belong to this user or to root, and be writable
    by nobody else. Where it points to is compared with the TAR when a sample is read (:func:`read_members`).
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                return None
            data = file.read()
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            return None
        content = io.BytesIO(data)
        header = parse_json(content.readline())
        if header["format"] != _FORMAT or header["identity"] != identity:
            return None
        arrays = {name: read_npy(content) for name in _KINDS}
        index = TarIndex(**arrays, extension_names=tuple(header["extensions"]), damage=header["damage"])
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None
    return index if _is_sound(index, int(identity["size"])) else None


def _is_sound(index: TarIndex, size: int) -> bool:
    """Whether the arrays fit together and point into a TAR of ``size`` bytes."""
    arrays = {name: getattr(index, name) for name in _KINDS}
    if any(array.dtype != _KINDS[name] or array.ndim != 1 for name, array in arrays.items()):
        return False
    names, members, samples = index.extension_names, len(index.offsets), len(index.key_ends)
    if not all(isinstance(name, str) for name in names) or not isinstance(index.damage, str | None):
        return False
    if not len(index.sizes) == len(index.extensions) == len(index.leads) == members:
        return False
    starts, ends = index.starts, np.concatenate([[0], index.key_ends])
    inside = (index.sizes >= 0) & (index.offsets >= index.leads) & (index.offsets <= size - index.sizes)
    return bool(
        len(starts) == samples + 1
        and starts[0] == 0
        and starts[-1] == members
        and ends[-1] == len(index.keys)
        and (np.diff(starts) >= 0).all()
        and (np.diff(ends) >= 0).all()
        and inside.all()
        and (index.leads <= LONGEST_HEADERS).all()
        and (index.extensions < len(names)).all()
    )
