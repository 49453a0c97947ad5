"""Embeddings stored in a folder, so that nothing is encoded twice.

    store.json                               format_version, the model's identity
    image-embeddings-1f2e3d4c/group.json     modality, stage, transform, amp: what the rows of this folder are
    image-embeddings-1f2e3d4c/<name>.json    ids, digests, sizes, mtimes_ns of the rows; broken images
    image-embeddings-1f2e3d4c/<name>.safetensors    rows (N, D), and thumbnails where they were asked for

A shard exists once its JSON file does, which is written last; both files are written whole or not at all.

An image is found by its id, the path of a file, if the file has the size and time it had when it was encoded, or no
longer exists. An image whose file has changed, or which has no id, is read and found by the digest of the pixels that
the model sees. Texts are found by the digest of their tokens. So a row is never used for another image or text.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hypvl.checks import one_of
from hypvl.embedding.identity import model_identity, weights_version
from hypvl.embedding.protocol import EvaluableModel, Modality, Stage
from hypvl.embedding.store_files import INSIDE, NO_STAMP, Entry, Stamp, absolute, read_json, stamp, write_json
from hypvl.errors import CheckpointError, DataError
from hypvl.io.tensors import write_safetensors

FORMAT_VERSION = 1
STORE_FILE, GROUP_FILE = "store.json", "group.json"
_ROWS_PER_SHARD = 4096
_SECONDS_PER_SHARD = 120.0
_SPARSE = 16  # a shard is read whole where more than one of so many of its rows are wanted

Mode: TypeAlias = Literal["read", "write"]


class Place(NamedTuple):
    """The place of a row: the number of a shard in the group, and the row in it."""

    shard: int
    row: int


class EmbeddingStore:
    """A folder of embeddings of one model.

    Args:
        folder: Its folder; write mode makes it.
        model: Identity of the model (:func:`hypvl.embedding.identity.model_identity`); None = any, to inspect a store.
        mode: ``"read"`` uses the rows that are there; ``"write"`` also adds new ones.
        roots: Folders by name. Ids of files below one begin with its name, so that the folder may move.
        thumbnails: Longer side in pixels of the thumbnails that are stored with images; 0 = none.

    Raises:
        DataError: when there is no store to read, or it cannot be read or written.
        CheckpointError: when it holds the embeddings of another model.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        model: str | None = None,
        mode: Mode = "read",
        roots: Mapping[str, str | Path] | None = None,
        thumbnails: int = 0,
    ) -> None:
        if mode not in ("read", "write") or (mode == "write" and model is None) or thumbnails < 0:
            raise ValueError(
                f"EmbeddingStore: got mode={mode!r}, model={model!r}, thumbnails={thumbnails}; expected 'read' or "
                "'write', a model to write, and thumbnails >= 0 pixels."
            )
        self.folder = Path(folder)
        self.writes = mode == "write"
        self.thumbnails = thumbnails if self.writes else 0
        self.reused, self.encoded = 0, 0  # how many rows were read instead, how many encoded
        self.warned = False  # whether it has said that it does not serve the model
        self.single_shard = False  # whether all rows become one shard now, whatever is stored (one_shard)
        # The longest first: an id begins with the name of the innermost root. Links are not followed, as in ids.
        absolute_roots = {name: os.path.abspath(root) for name, root in (roots or {}).items()}  # noqa: PTH100
        self._roots = sorted(absolute_roots.items(), key=lambda item: -len(item[1]))
        self._groups: dict[str, StoredGroup] = {}
        self._checked: tuple[Any, bool] = (None, False)
        self.model = self._open(model)

    def _open(self, model: str | None) -> str:
        file = self.folder / STORE_FILE
        if not file.is_file():
            if not self.writes or model is None:
                raise DataError(
                    f"{self.folder}: holds no embeddings ({STORE_FILE} is not there); make them with evaluate.py "
                    "--save-embeddings or extract_embeddings.py."
                )
            write_json(file, {"format_version": FORMAT_VERSION, "model": model})
            return model
        content = read_json(file, ("format_version", "model"))
        if content["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{file}: has format_version {content['format_version']}; expected {FORMAT_VERSION}, install the "
                "hypvl that wrote it."
            )
        if model is not None and content["model"] != model:
            raise CheckpointError(
                f"{self.folder}: holds embeddings of another model (identity {str(content['model'])[:12]}, this one "
                f"is {model[:12]}); name another folder, or the checkpoint they were made with."
            )
        return str(content["model"])

    def serves(self, model: EvaluableModel) -> bool:
        """Whether the rows are the embeddings of this model as it is now; unchanged weights are not hashed again."""
        version = weights_version(model)
        if version is None or self._checked[0] != version:
            self._checked = (version, model_identity(model) == self.model)
        return self._checked[1]

    def group(self, modality: Modality, stage: Stage, *, transform: str = "", amp: str = "") -> "StoredGroup":
        """The group of rows of one kind, possibly empty.

        ``transform`` is the ``repr`` of the transform of images, ``amp`` the precision of autocast, empty = without.
        """
        one_of("modality", modality, Modality)
        one_of("stage", stage, Stage)
        meta = {"modality": modality, "stage": stage, "transform": transform, "amp": amp}
        short = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{modality}-{stage}-{short}"
        if name not in self._groups:
            self._groups[name] = StoredGroup(self, self.folder / name, meta)
        return self._groups[name]

    def groups(self) -> list["StoredGroup"]:
        """The groups on the disk, in the order of their names."""
        for file in sorted(self.folder.glob(f"*/{GROUP_FILE}")):
            meta = read_json(file, ("modality", "stage", "transform", "amp"))
            self._groups.setdefault(file.parent.name, StoredGroup(self, file.parent, meta))
        return [self._groups[name] for name in sorted(self._groups)]

    def embeddings_of(self, modality: Modality, *, transform: str | None = None) -> tuple[list[str], Tensor]:
        """Ids and embeddings (N, D) of the only group of a modality, or of the one with this transform.

        Raises:
            DataError: when no group fits, or several do; it lists what there is.
        """
        one_of("modality", modality, Modality)
        fitting = [
            group
            for group in self.groups()
            if (group.meta["modality"], group.meta["stage"]) == (modality, "embeddings")
            and transform in (None, group.meta["transform"])
        ]
        if len(fitting) != 1:
            kinds = "; ".join(
                " ".join(map(str, filter(None, group.meta.values()))) for group in self.groups()
            )
            raise DataError(
                f"{self.folder}: has {len(fitting)} kinds of {modality} embeddings that fit; expected one, name "
                f"it by --transform (there are: {kinds or 'none'})."
            )
        return fitting[0].all_rows()

    @contextmanager
    def one_shard(self, name: str, *, source: Mapping[str, Any]) -> Iterator[None]:
        """Write all rows that are added inside as one shard, whatever is stored already; nothing after an error."""
        self.single_shard = True
        try:
            yield
            for group in self._groups.values():
                group.write_shard(name, source=source)
        finally:
            self.single_shard = False
            for group in self._groups.values():
                group.discard_pending()

    def portable(self, image_id: str) -> str:
        """An image's id as it is stored: relative to a named root, else an absolute path; URLs as they are."""
        path, separator, inside = absolute(image_id).partition(INSIDE)
        for name, root in self._roots:
            if path.startswith(root.rstrip(os.sep) + os.sep):
                path = f"{{{name}}}/{Path(path).relative_to(root).as_posix()}"
                break
        return path + separator + inside


@dataclass
class _Shard:
    path: Path  # of the rows
    ids: list[str]


@dataclass
class StoredGroup:
    """Rows of one modality, stage, transform and precision (``meta``), whose shards lie in a folder of the store."""

    store: EmbeddingStore
    folder: Path
    meta: dict[str, Any]
    _shards: list[_Shard] = field(default_factory=list)
    _listed: set[str] = field(default_factory=set)
    _by_id: dict[str, tuple[Stamp, Place | str]] = field(default_factory=dict)
    _by_digest: dict[str, Place] = field(default_factory=dict)
    _new: list[tuple[Entry, Tensor]] = field(default_factory=list)
    _broken: list[tuple[Entry, str]] = field(default_factory=list)
    _flushed: float = field(default_factory=time.monotonic)

    def refresh(self) -> None:
        """Read the lists of the shards that were written since the last call, by any process.

        Raises:
            DataError: for a shard that cannot be read.
        """
        if not self.folder.is_dir() or self.store.single_shard:
            return
        for file in sorted(self.folder.glob("*.json")):
            if file.name == GROUP_FILE or file.name in self._listed:
                continue
            self._listed.add(file.name)
            content = read_json(file, ("ids", "digests", "sizes", "mtimes_ns", "broken"))
            self._shards.append(_Shard(file.with_suffix(".safetensors"), content["ids"]))
            lists = (content[key] for key in ("ids", "digests", "sizes", "mtimes_ns"))
            for row, (name, digest, size, mtime) in enumerate(zip(*lists, strict=True)):
                place = Place(len(self._shards) - 1, row)
                if digest:
                    self._by_digest[digest] = place
                if name and self.meta["modality"] == "image":
                    self._by_id[name] = ((size, mtime), place)
            for entry in content["broken"]:
                self._by_id[entry["id"]] = ((entry["size"], entry["mtime_ns"]), entry["reason"])

    def find(self, image_id: str) -> Place | str | None:
        """Place of an image's row in the shards read so far, or why the image cannot be read.

        None = read the image and ask for its digest.
        """
        if not image_id or self.store.single_shard:
            return None
        # Rows that were written without the root of today have the absolute path.
        stored = self._by_id.get(self.store.portable(image_id)) or self._by_id.get(absolute(image_id))
        return stored[1] if stored is not None and stamp(image_id) in (NO_STAMP, stored[0]) else None

    def find_digest(self, digest: str) -> Place | None:
        """Place of the row with this digest in the shards read so far."""
        return self._by_digest.get(digest) if not self.store.single_shard else None

    def ids(self) -> list[list[str]]:
        """Ids of the rows of each shard read so far, in the order of the numbers of places."""
        return [shard.ids for shard in self._shards]

    def rows(self, places: Sequence[Place]) -> Tensor:
        """Rows at N >= 1 places, (N, D). Raises DataError when a shard cannot be read."""
        wanted: dict[int, list[int]] = {}
        for at, place in enumerate(places):
            wanted.setdefault(place.shard, []).append(at)
        result: Tensor | None = None
        for shard, positions in wanted.items():
            rows = self._some_rows(shard, [places[at].row for at in positions])
            if result is None:
                result = rows.new_empty(len(places), rows.shape[1])
            result[positions] = rows
        if result is None:
            raise ValueError("places: got none; expected at least one.")
        return result

    def all_rows(self) -> tuple[list[str], Tensor]:
        """Ids and rows (N, D) of the whole group, shards in the order of their names; each image once.

        Raises:
            DataError: when there are no rows, or a shard cannot be read.
        """

        def is_current(name: str, place: Place) -> bool:  # no later row replaces it
            return name not in self._by_id or self._by_id[name][1] == place

        self.refresh()
        filled = [i for i, shard in enumerate(self._shards) if shard.ids]
        if not filled:
            raise DataError(
                f"{self.folder}: holds no rows; fill it with --save-embeddings or extract_embeddings.py."
            )
        filled.sort(key=lambda i: self._shards[i].path.name)
        ids: list[str] = []
        blocks: list[Tensor] = []
        for i in filled:
            names = self._shards[i].ids
            current = [row for row, name in enumerate(names) if is_current(name, Place(i, row))]
            ids += [names[row] for row in current]
            blocks.append(self._tensor(i, "rows")[current])
        return ids, torch.cat(blocks)

    def add(self, entry: Entry, row: Tensor) -> None:
        """Add a row (D,). Rows are written after 4096 of them, after two minutes, and by :meth:`flush`."""
        self._new.append((entry, row))
        if len(self._new) >= _ROWS_PER_SHARD or time.monotonic() - self._flushed > _SECONDS_PER_SHARD:
            self.flush()

    def add_unreadable(self, entry: Entry, reason: str) -> None:
        """Store that an image with an id cannot be read; this holds until its file changes."""
        if entry.id and self.store.writes:
            self._broken.append((entry, reason))

    def flush(self) -> None:
        """Write the pending rows as a shard under a new, unique name. Raises as :meth:`write_shard`."""
        if not self.store.single_shard and (self._new or self._broken):
            self.write_shard(uuid.uuid4().hex)
        self._flushed = time.monotonic()

    def discard_pending(self) -> None:
        """Drop the rows that were added and are not written."""
        self._new, self._broken = [], []

    def pending(self) -> tuple[list[Entry], Tensor]:
        """Entries and rows (N, D) that were added and are not written. Raises ValueError without any."""
        if not self._new:
            raise ValueError("pending: no rows; expected at least one.")
        return [entry for entry, _ in self._new], torch.stack([row for _, row in self._new])

    def write_shard(self, name: str, *, source: Mapping[str, Any] | None = None) -> None:
        """Write the pending rows, if there are any, as the shard of this name; with it where its rows come from.

        Raises:
            DataError: when the folder cannot be written to.
        """
        if not self._new and not self._broken:
            return
        shard = self.folder / name
        write_json(self.folder / GROUP_FILE, self.meta)
        entries = [entry for entry, _ in self._new]
        if entries:
            tensors = {"rows": torch.stack([row for _, row in self._new])}
            if any(entry.thumbnail for entry in entries):
                data = b"".join(entry.thumbnail for entry in entries)
                tensors["thumbnails"] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                ends = torch.tensor([len(entry.thumbnail) for entry in entries]).cumsum(0)
                tensors["thumbnail_ends"] = ends
            try:
                write_safetensors(shard.with_name(f"{shard.name}.safetensors"), tensors, metadata=self.meta)
            except OSError as error:
                raise DataError(
                    f"{self.folder}: cannot be written to ({error.strerror}); free some space."
                ) from error
        broken = [
            {
                "id": self.store.portable(entry.id),
                "reason": reason,
                "size": entry.stamp[0],
                "mtime_ns": entry.stamp[1],
            }
            for entry, reason in self._broken
        ]
        is_image = self.meta["modality"] == "image"
        write_json(
            shard.with_name(f"{shard.name}.json"),
            {
                "format_version": FORMAT_VERSION,
                "model": self.store.model,
                **self.meta,
                "ids": [self.store.portable(e.id) if e.id and is_image else e.id for e in entries],
                "digests": [entry.digest for entry in entries],
                "sizes": [entry.stamp[0] for entry in entries],
                "mtimes_ns": [entry.stamp[1] for entry in entries],
                "broken": broken,
                "source": dict(source or {}),
            },
        )
        self.discard_pending()

    def _some_rows(self, shard: int, rows: Sequence[int]) -> Tensor:
        """Rows of a shard, (R, D); few of them are read one by one, without the others."""
        if len(rows) * _SPARSE > len(self._shards[shard].ids):
            return self._tensor(shard, "rows")[list(rows)]
        with self._opened(shard) as file:
            stored = file.get_slice("rows")
            return torch.cat([stored[row : row + 1] for row in rows])

    def _tensor(self, shard: int, name: str) -> Tensor:
        with self._opened(shard) as file:
            return file.get_tensor(name)

    @contextmanager
    def _opened(self, shard: int) -> Iterator[Any]:
        path = self._shards[shard].path
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{path}: cannot be read ({error}); delete it and its .json, and encode again."
            ) from error
