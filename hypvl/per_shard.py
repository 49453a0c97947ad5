"""Encoding a shard for engines that users bring (Spark, NeMo Curator, Dask, plain pools): one shard in, one out, once.

It makes what ``hypvl extract`` makes of the same shard, in the same kind of folder: many processes and machines may
call it for one folder, in any order and more than once. How they share a folder: docs/many_machines.md.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from hypvl.checks import one_of, one_path
from hypvl.data.transforms import ResizeCenterCrop, Squeeze, Transform
from hypvl.embedding.encode import Amp, Encoding
from hypvl.embedding.extract import Extracted, Format, ShardEncoder, extract
from hypvl.embedding.identity import model_identity
from hypvl.embedding.input_shards import tar_shards, text_shards
from hypvl.embedding.protocol import Stage
from hypvl.errors import DataError
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import create_model
from hypvl.units.claims import CLAIM_MINUTES

Preprocess: TypeAlias = Literal["crop", "squeeze"]
_TABLES = (".csv", ".tsv", ".jsonl", ".json", ".txt")


@dataclass(frozen=True)
class _Load:
    """Loads a model in whichever process it is called."""

    model: str
    checkpoint: str | None
    device: str | None

    def __call__(self) -> DualEncoder:
        return _model(self)


@functools.lru_cache(maxsize=1)
def _model(load: _Load) -> DualEncoder:
    device = ("cuda" if torch.cuda.is_available() else "cpu") if load.device is None else load.device
    return create_model(load.model, load.checkpoint, device=device)


@functools.lru_cache(maxsize=1)
def _identity(load: _Load) -> str:
    identity = model_identity(load())
    assert identity is not None  # of a module there is one
    return identity


def encode_shard(
    shard: str | Path,
    output_dir: str | Path,
    *,
    model: str | Path,
    checkpoint: str | Path | None = None,
    text_key: str | None = None,
    id_key: str | None = None,
    stage: Stage = "embeddings",
    preprocess: Preprocess | None = None,
    format: Format = "safetensors",  # as the flag of the command
    batch_size: int = 256,
    num_workers: int = 0,
    amp: Amp = False,
    max_bad_fraction: float = 0.1,
    device: str | None = None,
    claim_minutes: float = CLAIM_MINUTES,
) -> Extracted:
    """Encode one shard into a folder of embeddings, once: what ``hypvl extract`` does with each of its shards.

    The folder is one store, which ``hypvl evaluate --embeddings``, ``audit`` and ``export`` read. Shards need different
    file names. The same shard, model and arguments give the same bytes on the same kind of processor.

    Args:
        shard: A TAR, also an http(s) address: its images, or with ``text_key`` its texts. A table, ``.jsonl`` or
            ``.txt``: its texts.
        output_dir: Folder to create, or of other calls with the same model.
        model: As for :func:`hypvl.create_model`: a run's folder, a name, a config. Loaded once per process.
        checkpoint: Its weights, where ``model`` is a name or a config.
        text_key: Column of the texts (default: caption); of a TAR the member, such as ``txt`` or ``json.caption``.
        id_key: Column of the ids of texts.
        stage: Of the model: on the manifold; flat, before it; before the projection.
        preprocess: Shorter side and central square, or the whole image; None: as the model says, or the former.
        format: Parquet is for other programs; only safetensors can be read as a store.
        batch_size: Images, or texts, per forward pass.
        num_workers: Processes that read images.
        amp: Precision of the encoders.
        max_bad_fraction: Share of the images that may be unreadable.
        device: None: a GPU if there is one.
        claim_minutes: See :mod:`hypvl.units.claims`.

    Returns:
        The number of rows, and of images that cannot be read; ``existed``: whether the shard was there already.

    Raises:
        ValueError: an argument of another type, such as a model that is built already, or out of range.
        DataError: the shard cannot be read or encoded, or was made with other settings.
        CheckpointError: the folder holds the embeddings of another model.

    Example:
        With a pool of four processes; with Spark ``sc.parallelize(shards).map(encode).collect()``:

        >>> from functools import partial
        >>> from multiprocessing import get_context
        >>> encode = partial(encode_shard, output_dir="embeddings", model="output/meru_vit_b")
        >>> with get_context("spawn").Pool(4) as pool:  # doctest: +SKIP
        ...     results = pool.map(encode, ["00000.tar", "00001.tar"])
    """
    one_of("preprocess", preprocess, Preprocess | None)
    one_of("stage", stage, Stage)
    one_of("format", format, Format)
    place = one_path("shard", shard)
    one_path("output_dir", output_dir)
    for name, value in (
        ("model", model),
        ("checkpoint", checkpoint),
    ):  # of files, since every process loads its own
        if value is not None or name == "model":
            one_path(name, value)
    if Path(place.partition("?")[0]).suffix.lower() in _TABLES:
        (source,) = text_shards([place], text_key=text_key or "caption", id_key=id_key)
    else:
        (source,) = tar_shards([place], text_key=text_key)
    load = _Load(str(model), None if checkpoint is None else str(checkpoint), device)
    encoding = Encoding(
        batch_size=batch_size, num_workers=num_workers, amp=amp, progress=False, max_bad_fraction=max_bad_fraction
    )  # fmt: skip
    encoder = ShardEncoder(
        load, _identity(load), encoding, _transform(load(), preprocess), stage=stage, fmt=format
    )
    (result,) = extract(encoder, [source], output_dir, claim_minutes=claim_minutes)
    if result.error:
        raise DataError(result.error)
    return result


def _transform(model: DualEncoder, preprocess: Preprocess | None) -> Transform:
    if preprocess is None:
        return ResizeCenterCrop.of(model)
    kind: Any = ResizeCenterCrop if preprocess == "crop" else Squeeze
    made: Transform = kind(size=model.image_size, interpolation=model.interpolation)
    return made
