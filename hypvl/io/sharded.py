"""Sharded checkpoints: a folder of tensors of which each rank wrote a part, read without running anything in it.

``torch.distributed.checkpoint`` writes the parts (``__<rank>_0.distcp``, each a series of ``torch.save`` streams). Its
own table of contents is a pickle; here ``metadata.json`` takes its place: which tensor lies where, and the size and the
SHA-256 of every file. It is written last, and a pickle beside it is never opened. What is not sharded is in
``state.pth``, with ``{"sharded": name}`` where a tensor belongs.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.errors import CheckpointError
from hypvl.io.files import file_digest, read_regular, write_atomically
from hypvl.io.json_text import parse_json

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.checkpoint import FileSystemReader

INDEX_NAME = "metadata.json"
REST_NAME = "state.pth"
_FORMAT, _VERSION = "hypvl-sharded", 1
_PART_FILE = re.compile(r"__\d{1,6}_\d{1,6}\.distcp")
_DTYPES = frozenset({
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
})  # fmt: skip
_LARGEST_INDEX = 1 << 30  # bytes
_MARK = "sharded"


@dataclass(frozen=True)
class Chunk:
    """Some rows of a tensor in a file."""

    start: int  # the first row
    rows: int
    file: str
    offset: int  # bytes
    length: int  # bytes


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies."""

    dtype: str  # "float32"
    shape: tuple[int, ...]  # at least one dimension
    chunks: tuple[Chunk, ...]  # by their first row; together all rows


@dataclass(frozen=True)
class Index:
    """What a sharded checkpoint consists of."""

    files: Mapping[str, tuple[int, str]]  # name -> bytes, SHA-256
    tensors: Mapping[str, StoredTensor]

    def body(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "format": _FORMAT,
            "format_version": _VERSION,
            "files": {name: list(entry) for name, entry in self.files.items()},
            "tensors": {
                name: {
                    "dtype": tensor.dtype,
                    "shape": list(tensor.shape),
                    "chunks": [[c.start, c.rows, c.file, c.offset, c.length] for c in tensor.chunks],
                }
                for name, tensor in self.tensors.items()
            },
        }


def write_table(folder: Path, index: Index) -> None:
    """Write ``metadata.json``, which makes a folder a checkpoint. Raises OSError."""
    body = index.body()
    write_atomically(folder / INDEX_NAME, json.dumps({"checksum": _digest(body), **body}) + "\n")


def read_table(folder: Path) -> Index:
    """What ``metadata.json`` of a folder says. Raises CheckpointError: missing, damaged, or of a later version."""
    path = folder / INDEX_NAME
    try:
        body = parse_json(read_regular(path, max_bytes=_LARGEST_INDEX))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); expected what a sharded run writes last into a "
            "checkpoint, so this one is not complete: take another."
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: no JSON ({error}); take another checkpoint.") from error
    try:
        checksum = body.pop("checksum")
        if body["format"] != _FORMAT or type(body["format_version"]) is not int:
            raise ValueError(f"format {body['format']!r}")
        if body["format_version"] > _VERSION:
            raise CheckpointError(
                f"{path}: format_version {body['format_version']}; expected at most {_VERSION}, install a later hypvl."
            )
        if checksum != _digest(body):
            raise ValueError("it was changed after it was written")
        files = {name: (_whole(size), _text(digest)) for name, (size, digest) in body["files"].items()}
        if unknown := [name for name in files if name != REST_NAME and not _PART_FILE.fullmatch(name)]:
            raise ValueError(f"a file {unknown[0]!r:.40}")
        tensors = {name: _tensor(entry, files) for name, entry in body["tensors"].items()}
        return Index(files, tensors)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: is no table of contents of a sharded checkpoint ({error}); take another checkpoint."
        ) from error


def is_sharded_checkpoint(path: Path) -> bool:
    """Whether a path is a folder with a table of contents, and files that it could be one of."""
    if not (path / INDEX_NAME).is_file():
        return False
    return any(file.name == REST_NAME or _PART_FILE.fullmatch(file.name) for file in path.iterdir())


def sharded_checksum(folder: Path) -> str:
    """A SHA-256 that tells sharded checkpoints apart: that of their table of contents. Raises OSError."""
    return file_digest(folder / INDEX_NAME, "sha256")


def sharded_damage(folder: Path) -> str | None:
    """What is wrong with a sharded checkpoint, "__1_0.distcp is missing", or None for a whole one.

    Every file is read.

    Raises:
        OSError: when one cannot be read.
    """
    try:
        index = read_table(folder)
    except CheckpointError as error:
        return str(error).removeprefix(f"{folder}/").rpartition(";")[0]
    for name, (size, digest) in index.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if (got := path.stat().st_size) != size:
            return f"{name} has {got} bytes, of {size} that were written"
        if file_digest(path, "sha256") != digest:
            return f"{name} was changed after it was written"
    return None


@dataclass(frozen=True)
class Stored:
    """A tensor of a sharded checkpoint that is not read yet."""

    folder: Path
    index: Index
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole tensor."""
        return self.index.tensors[self.name].shape

    def whole(self) -> "Tensor":
        """All of it, on the CPU. Raises CheckpointError."""
        import torch

        entry = self.index.tensors[self.name]
        return self._into(torch.empty(entry.shape, dtype=getattr(torch, entry.dtype)))

    def like(self, tensor: "Tensor") -> "Tensor":
        """As much of it as this rank holds of ``tensor``, sharded in the same way; only that is read.

        Raises:
            CheckpointError: also for another shape.
        """
        import torch

        if tuple(tensor.shape) != self.shape:
            raise CheckpointError(
                f"{self.folder}: {self.name} has the shape {self.shape}; expected {tuple(tensor.shape)}."
            )
        dtype = getattr(torch, self.index.tensors[self.name].dtype)
        return self._into(torch.zeros_like(tensor.detach(), dtype=dtype))

    def _into(self, target: "Tensor") -> "Tensor":
        import pickle
        import warnings

        from torch.distributed import checkpoint as dcp
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that ranks do not load together
                dcp.load(
                    {self.name: target},
                    storage_reader=_reader(self.folder, self.index, self.name),
                    planner=dcp.DefaultLoadPlanner(),
                    no_dist=True,
                )
        except (
            CheckpointException, AssertionError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError,
            pickle.UnpicklingError,
        ) as error:  # fmt: skip
            # A CheckpointException holds the errors of ranks, and their tracebacks.
            cause = next((own for own, _ in getattr(error, "failures", {}).values()), error)
            reason = " ".join(str(cause).split())[:160]
            if isinstance(cause, pickle.UnpicklingError):  # torch advises to execute it
                reason = "no tensor, or a pickle with code, which was refused and not executed"
            raise CheckpointError(
                f"{self.folder}: {self.name} cannot be read ({reason}); take another checkpoint."
            ) from error
        return target


def mark(name: str) -> dict[str, str]:
    """What stands in ``state.pth`` where a tensor belongs."""
    return {_MARK: name}


def with_stored(value: Any, folder: Path, index: Index) -> Any:
    """The content of ``state.pth`` with a :class:`Stored` in place of every mark. Raises CheckpointError."""
    if isinstance(value, dict):
        if value.keys() == {_MARK}:
            name = value[_MARK]
            if name not in index.tensors:
                raise CheckpointError(f"{folder}: {name!r:.80} is in no file; take another checkpoint.")
            return Stored(folder, index, name)
        return {key: with_stored(item, folder, index) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(with_stored(item, folder, index) for item in value)
    return value


def read_stored(value: Any) -> Any:
    """The same with whole tensors, on the CPU. Raises CheckpointError."""
    if isinstance(value, dict):
        return {key: read_stored(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(read_stored(item) for item in value)
    return value.whole() if isinstance(value, Stored) else value


def _reader(folder: Path, index: Index, name: str) -> "FileSystemReader":
    """A reader of one tensor that is told where it lies, and opens no pickle."""
    import torch
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        TensorProperties,
        TensorStorageMetadata,
    )

    entry = index.tensors[name]
    chunks, places = [], {}
    for chunk in entry.chunks:
        offsets = torch.Size((chunk.start, *(0 for _ in entry.shape[1:])))
        chunks.append(ChunkStorageMetadata(offsets, torch.Size((chunk.rows, *entry.shape[1:]))))
        places[MetadataIndex(name, offsets)] = _StorageInfo(chunk.file, chunk.offset, chunk.length)
    properties = TensorProperties(dtype=getattr(torch, entry.dtype))
    table = Metadata(
        {name: TensorStorageMetadata(properties, torch.Size(entry.shape), chunks)}, storage_data=places
    )

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
            return table

    return Reader(folder)


def _tensor(entry: Mapping[str, Any], files: Mapping[str, tuple[int, str]]) -> StoredTensor:
    """A checked entry of the table of contents."""
    shape = tuple(_whole(size) for size in entry["shape"])
    if entry["dtype"] not in _DTYPES or not shape:
        raise ValueError(f"a tensor of {entry['dtype']!r:.40} with {len(shape)} dimensions")
    chunks = tuple(sorted(_chunks(entry["chunks"], files), key=lambda chunk: chunk.start))
    row = 0
    for chunk in chunks:
        if chunk.start != row:
            raise ValueError(f"rows {row} to {chunk.start} are in no file, or twice")
        row += chunk.rows
    if row != shape[0]:
        raise ValueError(f"{row} of {shape[0]} rows")
    if math.prod(shape) > sum(chunk.length for chunk in chunks):
        raise ValueError("more numbers than bytes")
    return StoredTensor(entry["dtype"], shape, chunks)


def _chunks(entries: Any, files: Mapping[str, tuple[int, str]]) -> Iterator[Chunk]:
    for start, rows, file, offset, length in entries:
        chunk = Chunk(_whole(start), _whole(rows), _text(file), _whole(offset), _whole(length))
        if file not in files or chunk.offset + chunk.length > files[file][0]:
            raise ValueError(f"a part of {file!r:.40} that is not there")
        if chunk.rows == 0:
            raise ValueError("a part without rows")
        yield chunk


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"{value!r:.40} is no size")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text")
    return value


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
