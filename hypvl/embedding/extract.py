"""Embeddings of whole shards: one shard in, one shard out, each written once, whole or not at all.

The folder is an :class:`~hypvl.embedding.store.EmbeddingStore`; in the folder of each of its groups ``units/`` says
which shards are made, from what, and who works on which (:mod:`hypvl.units.unit`).
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.checks import one_of, whole_number
from hypvl.data.workers import dead_worker
from hypvl.embedding.encode import CachedEncoder, Encoding, text_digests
from hypvl.embedding.identity import model_identity
from hypvl.embedding.input_shards import InputShard
from hypvl.embedding.protocol import EvaluableModel, Stage, Tokenizer, own_tokenizer
from hypvl.embedding.store import GROUP_FILE, EmbeddingStore, StoredGroup
from hypvl.embedding.store_files import Entry, read_json, write_json
from hypvl.errors import DataError, UserError
from hypvl.io.files import write_output
from hypvl.units.claims import CLAIM_MINUTES
from hypvl.units.engines import Engine, run_units
from hypvl.units.pool import Tick
from hypvl.units.unit import Made, Unit, UnitFolder, UnitResult

Format: TypeAlias = Literal["safetensors", "parquet"]
#: Gives the model; picklable and hashable where other processes work. Each process calls it once.
LoadModel: TypeAlias = Callable[[], EvaluableModel]


@dataclass(frozen=True)
class Extracted:
    """The result for one shard."""

    name: str
    rows: int = 0  # embeddings in the shard; 0 if it failed
    unreadable: int = 0  # images without embedding
    error: str = ""  # why there is no shard; empty if there is one
    existed: bool = False


@dataclass(frozen=True)
class ShardEncoder:
    """Encodes one shard: the function of a unit (:data:`hypvl.units.unit.UnitFunction`).

    Args:
        load: Gives the model.
        identity: The model's, :func:`hypvl.embedding.identity.model_identity`.
        encoding: Batches, workers, precision.
        transform: Of images, to the model's size.
        tokenizer: Of texts; None = the model's own.
        stage: Of the model.
        fmt: Format of the rows. Parquet is for other programs; only safetensors can be read as a store.
        thumbnails: Longer side in pixels of the thumbnails that are stored with images; 0 = none.
        threads: Of the model on a CPU. The last bits of its outputs depend on their number, so that a number of the
            machine's own would give each machine other bytes.
    """

    load: LoadModel
    identity: str
    encoding: Encoding
    transform: Callable[[Tensor], Tensor]
    tokenizer: Tokenizer | None = None
    stage: Stage = "embeddings"
    fmt: Format = "safetensors"
    thumbnails: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        whole_number("threads", self.threads, least=1)
        one_of("stage", self.stage, Stage)
        one_of("fmt", self.fmt, Format)

    def group(self, store: EmbeddingStore, shard: InputShard) -> StoredGroup:
        """Where the rows of a shard belong."""
        transform = repr(self.transform) if shard.modality == "image" else ""
        amp = "" if self.encoding.amp is False else self.encoding.amp
        return store.group(shard.modality, self.stage, transform=transform, amp=amp)

    def __call__(self, shard: InputShard, folder: Path, tick: Tick) -> Made:
        """Write the files of a shard into ``folder``.

        Raises:
            UserError: it cannot be read or encoded; the model is another than the one of ``identity``.
        """
        model = _load_once(self.load, self.identity)
        store = EmbeddingStore(folder, model=self.identity, mode="write", thumbnails=self.thumbnails)
        group = self.group(store, shard)
        source = shard.source()
        try:
            with store.one_shard(shard.name, source=source), _threads(self.threads):
                unreadable = self._encode(model, shard, store, group)
                entries, rows = group.pending()
                if not bool(rows.isfinite().all()):
                    raise UserError(
                        f"{shard.name}: the model gives NaN or infinity; use an earlier checkpoint."
                    )
                if self.fmt == "parquet":
                    write_parquet(group, shard.name, entries, rows)
                    group.discard_pending()
        except RuntimeError as error:
            died = dead_worker(error, setting="--num-workers")
            if died is None:
                raise
            raise DataError(died) from error
        # The list of a shard says that it is there, so it comes after the rows.
        endings = ("safetensors", "json") if self.fmt == "safetensors" else ("parquet",)
        names = [f"{shard.name}.{ending}" for ending in endings]
        for name in names:
            (group.folder / name).replace(folder / name)
        return Made(names, {"rows": len(rows), "unreadable": unreadable})

    def _encode(
        self, model: EvaluableModel, shard: InputShard, store: EmbeddingStore, group: StoredGroup
    ) -> int:
        """Add the rows of a shard to the group; the number of images that cannot be read."""
        if shard.images is not None:
            encoder = CachedEncoder(model, encoding=self.encoding, store=store)
            images = shard.images()
            encoder.encode_images(images, transform=self.transform, stage=self.stage, label=shard.name)
            return len(encoder.unreadable)
        if shard.texts is not None:
            tokenizer = own_tokenizer(model) if self.tokenizer is None else self.tokenizer
            texts = shard.texts()
            encoder = CachedEncoder(model, encoding=self.encoding, tokenizer=tokenizer)
            rows = encoder.encode_texts(texts.texts, stage=self.stage, label=shard.name)
            digests = text_digests(texts.texts, tokenizer)
            for text_id, digest, row in zip(texts.ids, digests, rows, strict=True):
                group.add(Entry(text_id, digest), row)
        return 0


def extract(
    encoder: ShardEncoder,
    shards: Sequence[InputShard],
    folder: str | Path,
    *,
    engine: Engine | None = None,
    claim_minutes: float = CLAIM_MINUTES,
) -> Iterator[Extracted]:
    """Encode shards; one that fails does not stop the others, one that exists is left as it is.

    Args:
        encoder: How each is encoded.
        shards: Shards of one modality.
        folder: A store, or a folder to make one in; several processes and machines may work in it.
        engine: Who does it; None: this process.
        claim_minutes: See :mod:`hypvl.units.claims`.

    Raises:
        CheckpointError: the store is of another model.
        DataError: the shards there were made with other settings, or the folder cannot be written to.
        UserError: parquet needs pyarrow, which is not installed.
    """
    if encoder.fmt == "parquet":
        require_pyarrow()
    store = EmbeddingStore(folder, model=encoder.identity, mode="write")
    if not shards:
        return
    engine = Engine() if engine is None else engine
    if engine.in_other_processes:
        encoder = replace(encoder, encoding=replace(encoder.encoding, progress=False))
    group = encoder.group(store, shards[0])
    settings = {**group.meta, "model": encoder.identity, "thumbnails": encoder.thumbnails}
    output = UnitFolder(group.folder, command="extract", settings=settings, claim_minutes=claim_minutes)
    output.check_settings(write=True)
    write_json(group.folder / GROUP_FILE, group.meta)
    units = [_unit(shard, encoder.fmt) for shard in shards]
    rest = []
    for shard, unit in zip(engine.share(shards), engine.share(units), strict=True):
        rows = _rows_of_before(group, shard, encoder.fmt) if output.manifest(unit.name) is None else None
        if rows is None:
            rest.append(unit)
        else:
            yield Extracted(shard.name, rows=rows, existed=True)
    # The share is taken already.
    here = replace(engine, name="local", index=None, count=None) if engine.name == "slurm-array" else engine
    for result in run_units(rest, encoder, folder=output, engine=here):
        yield _extracted(result, encoder.fmt)


def _unit(shard: InputShard, fmt: Format) -> Unit:
    name = shard.name if fmt == "safetensors" else f"{shard.name}.{fmt}"
    return Unit(name, tuple(shard.files), shard, shard.settings)


def _extracted(result: UnitResult, fmt: Format) -> Extracted:
    name = result.name.removesuffix(f".{fmt}")
    if result.status == "failed":
        return Extracted(name, error=result.error)
    counts = result.counts
    return Extracted(
        name, rows=counts["rows"], unreadable=counts["unreadable"], existed=result.status == "existed"
    )


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.lru_cache(maxsize=1)
def _load_once(load: LoadModel, identity: str) -> EvaluableModel:
    """The model, loaded once per process. Raises UserError when it is not the one of the folder."""
    model = load()
    if model_identity(model) != identity:
        raise UserError(
            "the model has changed since this command started; start it again, or name another folder."
        )
    return model


def _rows_of_before(group: StoredGroup, shard: InputShard, fmt: Format) -> int | None:
    """How many rows a shard has that a version without manifests made of the same files; None: there is none."""
    file = group.folder / (f"{shard.name}.json" if fmt == "safetensors" else f"{shard.name}.parquet.source")
    if not file.is_file() or not (group.folder / f"{shard.name}.{fmt}").is_file():
        return None
    content: Mapping[str, Any] = read_json(file, ("source",))
    return len(content.get("ids", ())) if content["source"] == shard.source() else None


def require_pyarrow() -> None:
    """Raises UserError, saying what to install, when pyarrow is absent."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UserError(
            "parquet needs pyarrow, which is not installed: pip install 'hypvl[parquet]', or use safetensors."
        ) from error


def write_parquet(group: StoredGroup, name: str, entries: Sequence[Entry], rows: Tensor) -> Path:
    """Write ``id`` (string) and ``embedding`` (list of D floats) as ``<name>.parquet`` of the group's folder.

    Raises DataError when it cannot be written.
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
    return path
