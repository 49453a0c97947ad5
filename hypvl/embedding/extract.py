"""Embeddings of whole shards: one shard in, one shard out, each written whole or not at all."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.data.workers import dead_worker
from hypvl.datasets.protocol import ImageSource
from hypvl.datasets.user_inputs import Texts
from hypvl.embedding.encode import CachedEncoder, Encoding, text_digests
from hypvl.embedding.protocol import EvaluableModel, Modality, Stage, Tokenizer
from hypvl.embedding.store import EmbeddingStore, StoredGroup
from hypvl.embedding.store_files import NO_STAMP, Entry, read_json, stamp, write_json
from hypvl.errors import DataError, UserError
from hypvl.io.files import write_output
from hypvl.io.redact import redact_url

Format: TypeAlias = Literal["safetensors", "parquet"]


@dataclass(frozen=True)
class InputShard:
    """Images or texts, one of which can be opened, whose embeddings become one shard."""

    name: str
    files: Sequence[str]  # when one changes, the shard is made again
    images: Callable[[], ImageSource] | None = None
    texts: Callable[[], Texts] | None = None

    @property
    def modality(self) -> Modality:
        """Modality of the inputs."""
        return "text" if self.images is None else "image"

    def source(self) -> dict[str, Any]:
        """Its files with their sizes and times, which are stored with the shard."""
        stamps = [stamp(name) for name in self.files]
        files = [redact_url(name) for name in self.files]  # the store shows them
        return {"files": files, "stamps": [None if s == NO_STAMP else list(s) for s in stamps]}


@dataclass(frozen=True)
class Extracted:
    """The result for one shard."""

    name: str
    rows: int = 0  # embeddings written; 0 if the shard existed already or failed
    unreadable: int = 0  # images without embedding
    error: str = ""  # why there is no shard; empty if there is one
    existed: bool = False


def extract(
    model: EvaluableModel,
    shards: Sequence[InputShard],
    *,
    store: EmbeddingStore,
    encoding: Encoding,
    transform: Callable[[Tensor], Tensor],
    tokenizer: Tokenizer,
    stage: Stage = "embeddings",
    fmt: Format = "safetensors",
) -> Iterator[Extracted]:
    """Encode shard by shard; a shard that fails does not stop the others, one that exists is left as it is.

    Args:
        shards: Shards of one modality.
        store: Receives the shards; opened to write.
        transform: Of images, to the model's size.
        fmt: Format of the rows. Parquet is for other programs; only safetensors can be read as a store.

    Raises:
        UserError: when parquet needs pyarrow, which is not installed, or the store is of another model.
    """
    one_of("stage", stage, Stage)
    one_of("fmt", fmt, Format)
    if not store.serves(model):
        raise UserError(
            f"{store.folder}: is of another model than the one that encodes; name another folder."
        )
    if fmt == "parquet":
        require_pyarrow()
    amp = "" if encoding.amp is False else encoding.amp
    for shard in shards:
        name = repr(transform) if shard.modality == "image" else ""
        group = store.group(shard.modality, stage, transform=name, amp=amp)
        source = shard.source()
        if _exists(group, shard.name, source, fmt):
            yield Extracted(shard.name, existed=True)
            continue
        try:
            with store.one_shard(shard.name, source=source):
                unreadable = 0
                if shard.images is not None:
                    encoder = CachedEncoder(model, encoding=encoding, store=store)
                    images = shard.images()
                    encoder.encode_images(images, transform=transform, stage=stage, label=shard.name)
                    unreadable = len(encoder.unreadable)
                elif shard.texts is not None:
                    texts = shard.texts()
                    encoder = CachedEncoder(model, encoding=encoding, tokenizer=tokenizer)
                    rows = encoder.encode_texts(texts.texts, stage=stage, label=shard.name)
                    digests = text_digests(texts.texts, tokenizer)
                    for text_id, digest, row in zip(texts.ids, digests, rows, strict=True):
                        group.add(Entry(text_id, digest), row)
                entries, rows = group.pending()
                if not bool(rows.isfinite().all()):
                    raise UserError(
                        f"{shard.name}: the model gives NaN or infinity; use an earlier checkpoint."
                    )
                if fmt == "parquet":
                    write_parquet(group, shard.name, entries, rows, source=source)
                    group.discard_pending()
            yield Extracted(shard.name, rows=len(rows), unreadable=unreadable)
        except (UserError, RuntimeError) as error:
            died = dead_worker(error, setting="--num-workers")
            if died is None and not isinstance(error, UserError):
                raise
            yield Extracted(shard.name, error=died or str(error))


def _exists(group: StoredGroup, name: str, source: dict[str, Any], fmt: Format) -> bool:
    file = group.folder / (f"{name}.json" if fmt == "safetensors" else f"{name}.parquet.source")
    rows = group.folder / f"{name}.{fmt}"
    if not file.is_file() or not rows.is_file():
        return False
    return bool(read_json(file, ("source",))["source"] == source)


def require_pyarrow() -> None:
    """Raises UserError, saying what to install, when pyarrow is absent."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UserError(
            "parquet needs pyarrow, which is not installed: pip install 'hypvl[parquet]', or use safetensors."
        ) from error


def write_parquet(
    group: StoredGroup, name: str, entries: Sequence[Entry], rows: Tensor, *, source: dict[str, Any]
) -> Path:
    """Write ``id`` (string) and ``embedding`` (list of D floats) as ``<name>.parquet`` of the group's folder.

    Where the rows come from is written last, as ``<name>.parquet.source``. Raises DataError when it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    is_image = group.meta["modality"] == "image"
    ids = [group.store.portable(entry.id) if entry.id and is_image else entry.id for entry in entries]
    # Names of files may not be Unicode.
    ids = [text.encode("utf-8", "backslashreplace").decode() for text in ids]
    flat = pa.array(rows.to(torch.promote_types(rows.dtype, torch.float32)).numpy().reshape(-1))
    columns = {"id": pa.array(ids), "embedding": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])}
    meta = {key: str(value) for key, value in {**group.meta, "model": group.store.model}.items()}
    table = pa.table(columns).replace_schema_metadata({"hypvl": json.dumps(meta)})
    path = group.folder / f"{name}.parquet"
    write_output(path, lambda file: parquet.write_table(table, file))
    write_json(path.with_name(f"{path.name}.source"), {"source": source})
    return path


def shard_names(places: Sequence[str]) -> list[str]:
    """A name for each file: its own without the ending, after as many of its folders as make all names differ.

    Raises:
        DataError: when a file is given twice.
    """
    parts = [Path(place.partition("?")[0]).parts for place in places]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["--".join(part.strip(":/") for part in own[-depth:]) for own in parts]
        names = [name.rpartition(".")[0] or name for name in names]
        if len(set(names)) == len(names):
            return names
    twice = next(place for i, place in enumerate(places) if parts[i] in parts[:i])
    raise DataError(f"{twice}: is given twice; name each shard once.")
