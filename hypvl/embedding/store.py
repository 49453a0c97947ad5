"""Embeddings kept in a folder: what was encoded once is taken from there.

    store.json                               format_version, the model's identity
    image-embeddings-1f2e3d4c/group.json     modality, stage, transform, amp: what the rows of this folder are
    image-embeddings-1f2e3d4c/<name>.json    ids, digests, sizes, mtimes_ns of the rows; broken images
    image-embeddings-1f2e3d4c/<name>.safetensors    rows (N, D), and thumbnails where they were asked for

A shard counts once its JSON file is there, which is written last; both are written whole or not at all.

An image is found by its id, a file's place, if the file has the size and the time it had, or is not there any
more. Where it has changed, or has no id, the image is read and found by the digest of what the model sees of
it. Texts are found by the digest of their tokens. So a row never stands for something else.
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

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.embedding.identity import model_identity, weights_version
from hypvl.embedding.protocol import EvaluableModel, Modality, Stage
from hypvl.embedding.store_files import (
    INSIDE,
    Entry,
    Stamp,
    absolute,
    columns,
    read_json,
    stamp,
    stamp_of,
    write_json,
)
from hypvl.errors import CheckpointError, DataError
from hypvl.io.tensors import write_safetensors

FORMAT_VERSION = 1
STORE_FILE, GROUP_FILE = "store.json", "group.json"
_ROWS_PER_SHARD = 4096
_SECONDS_PER_SHARD = 120.0

Mode: TypeAlias = Literal["read", "write"]


class Place(NamedTuple):
    """Where a row is: a shard of the group, and its row."""

    shard: int
    row: int


@dataclass(frozen=True)
class Broken:
    """An image that could not be read.

    Attributes:
        reason: Why.
    """

    reason: str


@configurable("evaluate")
class EmbeddingStore:
    """A folder of embeddings of one model.

    Args:
        folder: Where it is, or, in write mode, is made.
        model: the identity of the model (identity.py); None = any model's, to look into.
        mode: ``"read"`` takes what is there; ``"write"`` also adds what is not.
        roots: Folders by name. Files below one are known by its name, so that the folder may move.
        thumbnails: Longer side in pixels of the thumbnails that are kept with images; 0 = none.

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
        self.taken, self.encoded = 0, 0
        self.warned = False  # that it was left alone
        # The longest first: the folder that is nearest to a file names it.
        given = {name: os.path.abspath(root) for name, root in (roots or {}).items()}  # noqa: PTH100  # as below
        self._roots = sorted(given.items(), key=lambda item: -len(item[1]))
        self._groups: dict[str, StoredGroup] = {}
        self._one_shard = False
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
        """Whether the rows are what this model would give now; weights are read again only when they changed."""
        version = weights_version(model)
        if version is None or self._checked[0] != version:
            self._checked = (version, model_identity(model) == self.model)
        return self._checked[1]

    def group(self, modality: Modality, stage: Stage, *, transform: str = "", amp: str = "") -> "StoredGroup":
        """The rows of one kind; there may be none.

        Args:
            modality: Of what.
            stage: Of the model.
            transform: How images were made the model's size, as its ``repr`` says it.
            amp: Precision of the encoders, empty = as they are.
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
        """Those on the disk, in the order of their names."""
        for file in sorted(self.folder.glob(f"*/{GROUP_FILE}")):
            meta = read_json(file, ("modality", "stage", "transform", "amp"))
            self._groups.setdefault(file.parent.name, StoredGroup(self, file.parent, meta))
        return [self._groups[name] for name in sorted(self._groups)]

    @contextmanager
    def one_shard(self, name: str, *, about: Mapping[str, Any]) -> Iterator[None]:
        """All that is encoded inside becomes one shard, whatever is there already; nothing when it fails.

        Args:
            name: Of the shard in its group.
            about: What is written down with it, as ``source``.
        """
        self._one_shard = True
        try:
            yield
            for group in self._groups.values():
                group.write_shard(name, about=about)
        finally:
            self._one_shard = False
            for group in self._groups.values():
                group.forget()

    @property
    def adds_up(self) -> bool:
        """Whether what is there is taken, and new shards are written as rows come in."""
        return not self._one_shard

    def portable(self, image_id: str) -> str:
        """An image's id as it is kept: below the name of a root, or of the file system; addresses as they are."""
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
    """Rows of one modality, stage, transform and precision.

    Args:
        store: What it is part of.
        folder: Of its shards.
        meta: What its rows are.
    """

    store: EmbeddingStore
    folder: Path
    meta: dict[str, Any]
    _shards: list[_Shard] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)
    _by_id: dict[str, tuple[Stamp | None, Place | Broken]] = field(default_factory=dict)
    _by_digest: dict[str, Place] = field(default_factory=dict)
    _new: list[tuple[Entry, Tensor]] = field(default_factory=list)
    _broken: list[tuple[Entry, str]] = field(default_factory=list)
    _flushed: float = field(default_factory=time.monotonic)

    def refresh(self) -> None:
        """Learn of the shards that have come since.

        Raises:
            DataError: for one that cannot be read.
        """
        if not self.folder.is_dir() or not self.store.adds_up:
            return
        for file in sorted(self.folder.glob("*.json")):
            if file.name == GROUP_FILE or file.name in self._known:
                continue
            self._known.add(file.name)
            content = read_json(file, ("ids", "digests", "sizes", "mtimes_ns", "broken"))
            self._shards.append(_Shard(file.with_suffix(".safetensors"), content["ids"]))
            lists = (content[key] for key in ("ids", "digests", "sizes", "mtimes_ns"))
            for row, (name, digest, size, mtime) in enumerate(zip(*lists, strict=True)):
                place = Place(len(self._shards) - 1, row)
                if digest:
                    self._by_digest[digest] = place
                if name and self.meta["modality"] == "image":
                    self._by_id[name] = (stamp_of(size, mtime), place)
            for entry in content["broken"]:
                stamp = stamp_of(entry["size"], entry["mtime_ns"])
                self._by_id[entry["id"]] = (stamp, Broken(entry["reason"]))

    def find(self, image_id: str) -> Place | Broken | None:
        """What the shards known by now say of an image; None = read it, it may yet be known by its digest."""
        known = self._look_up(image_id) if image_id else None
        if known is None or not self.store.adds_up:
            return None
        now = stamp(image_id)
        return known[1] if now is None or now == known[0] else None

    def _look_up(self, image_id: str) -> tuple[Stamp | None, Place | Broken] | None:
        """By the name of a root, or, for rows that were written without one, by the whole path."""
        return self._by_id.get(self.store.portable(image_id)) or self._by_id.get(absolute(image_id))

    def find_digest(self, digest: str) -> Place | None:
        """Where the row of what the model sees is; of the shards known by now."""
        return self._by_digest.get(digest) if self.store.adds_up else None

    def rows(self, places: Sequence[Place]) -> Tensor:
        """Rows at N >= 1 places, (N, D).

        Raises:
            DataError: when a shard cannot be read.
        """
        wanted: dict[int, list[int]] = {}
        for at, place in enumerate(places):
            wanted.setdefault(place.shard, []).append(at)
        result: Tensor | None = None
        for shard, positions in wanted.items():
            rows = self._tensor(shard, "rows")
            if result is None:
                result = rows.new_empty(len(places), rows.shape[1])
            result[positions] = rows[[places[at].row for at in positions]]
        if result is None:
            raise ValueError("places: got none; expected at least one.")
        return result

    def everything(self) -> tuple[list[str], Tensor]:
        """Ids and rows (N, D) of all there is, shard by shard in the order of their names; each image once.

        Raises:
            DataError: when there is nothing, or a shard cannot be read.
        """
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
            kept = [
                row for row, name in enumerate(self._shards[i].ids) if self._is_current(name, Place(i, row))
            ]
            ids += [self._shards[i].ids[row] for row in kept]
            blocks.append(self._tensor(i, "rows")[kept])
        return ids, torch.cat(blocks)

    def _is_current(self, name: str, place: Place) -> bool:
        """Whether no later row is of the same image."""
        known = self._by_id.get(name)
        return known is None or known[1] == place

    def thumbnail(self, image_id: str) -> bytes | None:
        """JPEG of an image, None where none was kept; the id as kept or as its source says it."""
        known = self._by_id.get(image_id) or self._look_up(image_id)
        if known is None or isinstance(known[1], Broken):
            return None
        shard, row = known[1]
        with safe_open(self._shards[shard].path, framework="pt") as file:
            if "thumbnail_ends" not in file.keys():  # noqa: SIM118  # no mapping
                return None
            ends = [0, *file.get_tensor("thumbnail_ends").tolist()]
            data = file.get_slice("thumbnails")[ends[row] : ends[row + 1]]
        return bytes(data.numpy()) or None

    def add(self, entry: Entry, row: Tensor) -> None:
        """Add a row (D,); it is on the disk after some thousand of them, some time, or :meth:`flush`."""
        self._new.append((entry, row))
        if len(self._new) >= _ROWS_PER_SHARD or time.monotonic() - self._flushed > _SECONDS_PER_SHARD:
            self.flush()

    def add_broken(self, entry: Entry, reason: str) -> None:
        """Remember an image with an id that cannot be read, until its file changes."""
        if entry.id:
            self._broken.append((entry, reason))

    def flush(self) -> None:
        """Write what has been added as a shard under a name that nobody else has.

        Raises:
            DataError: when the folder cannot be written to.
        """
        if self.store.adds_up and (self._new or self._broken):
            self.write_shard(uuid.uuid4().hex)
        self._flushed = time.monotonic()

    def forget(self) -> None:
        """Drop what has been added and is not written."""
        self._new, self._broken = [], []

    def added(self) -> tuple[list[Entry], Tensor]:
        """What has been added and is not written, rows (N, D). Raises ValueError when that is nothing."""
        if not self._new:
            raise ValueError("added: nothing; expected at least one row.")
        return [entry for entry, _ in self._new], torch.stack([row for _, row in self._new])

    def write_shard(self, name: str, *, about: Mapping[str, Any] | None = None) -> None:
        """Write what has been added, if there is any, as the shard of this name.

        Args:
            name: Of the shard.
            about: Written down with it.

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
            {"id": self.store.portable(entry.id), "reason": reason} | columns(entry.stamp)
            for entry, reason in self._broken
        ]
        is_image = self.meta["modality"] == "image"
        stamps = [columns(entry.stamp) for entry in entries]
        write_json(
            shard.with_name(f"{shard.name}.json"),
            {
                "format_version": FORMAT_VERSION,
                "model": self.store.model,
                **self.meta,
                "ids": [self.store.portable(e.id) if e.id and is_image else e.id for e in entries],
                "digests": [entry.digest for entry in entries],
                "sizes": [found["size"] for found in stamps],
                "mtimes_ns": [found["mtime_ns"] for found in stamps],
                "broken": broken,
                "source": dict(about or {}),
            },
        )
        self.forget()

    def _tensor(self, shard: int, name: str) -> Tensor:
        path = self._shards[shard].path
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{path}: cannot be read ({error}); delete it and its .json, and encode again."
            ) from error
