"""Writing sharded checkpoints: every rank its part of the tensors, and the folder appears when all of it is on disk."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter, save
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from hypvl import distributed
from hypvl.errors import UserError
from hypvl.io.files import file_digest, sync_folder
from hypvl.io.sharded import REST_NAME, Chunk, Index, StoredTensor, mark, write_table
from hypvl.io.tensors import write_torch
from hypvl.training.parallel import is_sharded


class _Writer(FileSystemWriter):
    """Keeps the table of contents, where DCP's own would pickle it. ``metadata`` is set on rank 0."""

    metadata: Metadata | None = None

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except (
            RuntimeError
        ) as error:  # of torch.save's archive, which a full disk leaves in the middle of a record
            raise _system_error(error) or error from None

    def finish(self, metadata: Metadata, results: list[list[Any]]) -> None:
        metadata.storage_data = {result.index: result.storage_data for own in results for result in own}
        self.metadata = metadata


def write_sharded(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state with sharded tensors to the folder ``path`` (a collective).

    It is written under another name beside it, brought to disk by every rank, and renamed by rank 0. A damaged folder
    that is there is replaced.

    Raises:
        UserError: on every rank, when it cannot be written, or the ranks do not see one folder; nothing appears.
    """
    part = distributed.from_main(lambda: _begin(path))
    try:
        tensors: dict[str, Tensor] = {}
        rest = _split(state, "", tensors)
        writer = _Writer(part, single_file_per_rank=True, sync_files=True)
        try:
            save(tensors, storage_writer=writer)
        except CheckpointException as error:
            raise UserError(_not_written(path, _reason(error))) from error
        written = _own_files(part, path)
        distributed.from_main(lambda: _finish(path, part, rest, cast(Metadata, writer.metadata), written))
    except BaseException:
        if distributed.is_main():
            shutil.rmtree(part, ignore_errors=True)
        raise


def _begin(path: Path) -> Path:
    part = path.with_name(f".{path.name}.{int.from_bytes(os.urandom(6))}.part")
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise UserError(_not_written(path, error.strerror or str(error))) from error
    return part


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The state without its sharded tensors, which are put into ``tensors``."""
    if isinstance(value, Mapping):
        return {
            key: _split(item, f"{name}/{key}" if name else str(key), tensors) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_split(item, f"{name}/{i}", tensors) for i, item in enumerate(value))
    if not is_sharded(value):
        return value
    tensors[name] = value
    return mark(name)


def _own_files(part: Path, path: Path) -> dict[str, tuple[int, str]]:
    """Bytes and SHA-256 of what every rank has written (a collective)."""
    digests: dict[str, tuple[int, str]] = {}
    failed: str | None = None
    try:
        for file in sorted(part.glob(f"__{distributed.rank()}_*.distcp")):
            digests[file.name] = (file.stat().st_size, file_digest(file, "sha256"))
    except OSError as error:
        failed = error.strerror or str(error)
    everything: dict[str, tuple[int, str]] = {}
    for rank, (theirs, reason) in enumerate(distributed.gather_objects((digests, failed))):
        if reason is not None:
            raise UserError(_not_written(path, f"rank {rank}: {reason}"))
        everything |= theirs
    return everything


def _finish(
    path: Path, part: Path, rest: Any, metadata: Metadata, written: Mapping[str, tuple[int, str]]
) -> None:
    for name, (size, _) in written.items():
        if not (part / name).is_file() or (part / name).stat().st_size != size:
            raise UserError(
                f"{path}: rank 0 does not see {name}, which another rank wrote there; give all machines one shared "
                "--output-dir, or train with train.parallel=ddp."
            )
    try:
        write_torch(part / REST_NAME, rest)
        files = dict(written) | {
            REST_NAME: ((part / REST_NAME).stat().st_size, file_digest(part / REST_NAME, "sha256"))
        }
        write_table(part, Index(files, _tensors(metadata)))
        sync_folder(part)
        if path.exists():
            remove_folder(path)
        part.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(_not_written(path, error.strerror or str(error))) from error


def _tensors(metadata: Metadata) -> dict[str, StoredTensor]:
    """DCP's table of contents as ours."""
    places = {(index.fqn, tuple(index.offset or ())): info for index, info in metadata.storage_data.items()}
    tensors = {}
    for name, entry in metadata.state_dict_metadata.items():
        assert isinstance(entry, TensorStorageMetadata)
        chunks = []
        for chunk in entry.chunks:
            if chunk.sizes[0] == 0:  # of a rank that holds no row of it
                continue
            info = places[name, tuple(chunk.offsets)]
            chunks.append(
                Chunk(chunk.offsets[0], chunk.sizes[0], info.relative_path, info.offset, info.length)
            )
        dtype = str(entry.properties.dtype).removeprefix("torch.")
        tensors[name] = StoredTensor(dtype, tuple(entry.size), tuple(sorted(chunks, key=lambda c: c.start)))
    return tensors


def remove_folder(folder: Path) -> None:
    """Remove a sharded checkpoint, which no longer looks like one from the first moment on. Raises OSError."""
    gone = folder.with_name(f".{folder.name}.{int.from_bytes(os.urandom(6))}.part")
    folder.rename(gone)
    with contextlib.suppress(OSError):  # what is left is removed by the next run
        shutil.rmtree(gone)


def _system_error(error: BaseException) -> OSError | None:
    """The error of the system while which another one was raised; None where there was none."""
    before: BaseException | None = error
    while before is not None and not isinstance(before, OSError):
        before = before.__context__
    return before


def _reason(error: CheckpointException) -> str:
    """What went wrong on which rank, in a few words."""
    for rank, (failure, _) in error.failures.items():
        text = (failure.strerror if isinstance(failure, OSError) else None) or str(failure)
        return f"rank {rank}: {' '.join(text.split())[:160]}"
    return "unknown"


def _not_written(path: Path, reason: str) -> str:
    return (
        f"{path}: cannot be written ({reason}); the checkpoints before it are whole; make room, then go on with "
        "--resume."
    )
