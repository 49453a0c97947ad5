"""Encode every image and text of a data set once, and search a gallery without holding all scores.

Memory: the embeddings, (N + K) x D; the images of one batch per worker; and of the scores one block of
``query_chunk x key_chunk`` with the ``k`` best of a chunk of queries. Nothing grows with N x K.

With a store (``Encoding.store``) what has been encoded before is taken from it. Under a process group each rank
encodes its share of the batches, the same batches as in one process, and every rank gets all embeddings.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.protocol import ImageSource
from hypvl.embedding.cache_lookup import Known
from hypvl.embedding.distributed_encode import run_shares
from hypvl.embedding.loading import Keeping, Loaded, load_batches
from hypvl.embedding.store import EmbeddingStore, StoredGroup
from hypvl.embedding.store_files import Entry, text_digest
from hypvl.embedding.topk import BestKeys
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluableModel, Modality, Stage, Tokenizer
from hypvl.io.redact import printable

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _processors() -> int:
    """Those this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@configurable("evaluate")
@dataclass(frozen=True)
class Encoding:
    """How images and texts are run through a model.

    Args:
        batch_size: Images, or texts, per forward pass.
        num_workers: Processes that read and resize images; 0 = none beside this one; None = 4, or as many as
            there are processors.
        amp: Autocast of the encoders; the geometry keeps its own precision.
        progress: Show a progress bar on standard error (where that is a terminal).
        max_bad_fraction: Share of images in [0, 1] that may be unreadable before this is an error.
        store: Embeddings that are there already; in write mode what is encoded is added.
    """

    batch_size: int = 256
    num_workers: int | None = None
    amp: Literal["bf16", "fp16", False] = False
    progress: bool = True
    max_bad_fraction: float = 0.1
    store: EmbeddingStore | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0 or not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(
                f"Encoding: got batch_size={self.batch_size}, num_workers={self.num_workers}, max_bad_fraction="
                f"{self.max_bad_fraction}; expected batch_size >= 1, num_workers >= 0, max_bad_fraction in [0, 1]."
            )
        if self.amp is not False and self.amp not in _HALF:
            raise ValueError(f"Encoding: got amp={self.amp!r}; expected 'bf16', 'fp16' or False.")

    @property
    def workers(self) -> int:
        """``num_workers``, or what it is by default here."""
        return min(4, _processors()) if self.num_workers is None else self.num_workers


@dataclass(frozen=True)
class EncodedImages:
    """Embeddings of the images that could be read.

    Attributes:
        embeddings: (N, D), on the CPU.
        indices: (N,) int64, the position of each in the data set, ascending.
        bad: (position, reason) of those that could not be read.
    """

    embeddings: Tensor
    indices: Tensor
    bad: list[tuple[int, str]]


@contextmanager
def evaluating(model: EvaluableModel) -> Iterator[torch.device]:
    """Inference mode and evaluation mode inside, the mode of before afterwards; gives the model's device."""
    was_training = model.training
    model.train(False)
    try:
        with torch.inference_mode():
            yield next((p.device for p in model.parameters()), torch.device("cpu"))
    finally:
        model.train(was_training)


def encode_images(
    model: EvaluableModel,
    images: ImageSource,
    *,
    transform: Callable[[Tensor], Tensor],
    encoding: Encoding,
    stage: Stage = "embeddings",
    label: str = "images",
) -> EncodedImages:
    """Encode images by position, skipping those that cannot be read.

    Args:
        model: What encodes them.
        images: Images, uint8 (3, h, w) each.
        transform: To uint8 (3, size, size), all of one size; run in the workers.
        encoding: Batches, workers, precision.
        stage: What to keep of the model.
        label: What the progress bar says.

    Raises:
        DataError: when there are no images, or more than ``max_bad_fraction`` of them are unreadable.
    """
    one_of("stage", stage, Stage)
    if len(images) == 0:
        raise DataError(f"{label}: holds no images; expected at least one.")
    count = len(images)
    # Without a name of the transform, images are known by what it makes of them alone.
    name = "" if _ADDRESS.search(repr(transform)) else repr(transform)
    group = _group(model, encoding, "image", stage, transform=name)
    ids: Sequence[str] | None = getattr(images, "ids", None) if group is not None and name else None
    known = Known.of_images(group, ids)
    todo = [index for index in range(count) if index not in known.positions]
    _tell(group, label, known, count, todo)
    keeping = None if group is None else Keeping(ids, group.store.thumbnails)
    bad = list(known.bad)

    def share(batches: Sequence[Sequence[int]]) -> tuple[list[int], Tensor | None, list[tuple[int, str]]]:
        blocks: list[Tensor] = []
        indices: list[int] = []
        broken: list[Loaded] = []
        total = sum(map(len, batches))
        if group is not None:
            group.refresh()  # what may be known by what the model sees
        loader = load_batches(
            images, batches, transform=transform, num_workers=encoding.workers, keeping=keeping
        )
        with evaluating(model) as device, _bar(label, total, encoding) as advance, _flushed(group):
            for batch in loader if batches else ():
                good, rows = _encode_images(
                    model, batch, group, device=device, stage=stage, encoding=encoding
                )
                blocks += rows
                indices += good
                broken += [image for image in batch if image.pixels is None]
                _check_bad(bad + [(p.index, p.reason) for p in broken], count, encoding, label)
                advance(len(batch))
            if group is not None and group.store.writes:
                for image in broken:
                    assert image.entry is not None
                    group.add_broken(image.entry, image.reason)
        return indices, torch.cat(blocks) if blocks else None, [(p.index, p.reason) for p in broken]

    indices, rows, broken = run_shares(share, todo, batch_size=encoding.batch_size)
    bad = sorted(bad + broken)
    _check_bad(bad, count, encoding, label)
    indices, rows = known.join(indices, rows)
    if rows is None:
        raise DataError(f"{label}: none of its {count} images can be read; the first: {bad[0][1]}")
    return EncodedImages(rows, torch.tensor(indices, dtype=torch.int64), bad)


def encode_texts(
    model: EvaluableModel,
    texts: Sequence[str],
    *,
    tokenizer: Tokenizer,
    encoding: Encoding,
    stage: Stage = "embeddings",
    label: str = "texts",
) -> Tensor:
    """Encode texts in their order: (N, D), on the CPU.

    Raises:
        DataError: when there are no texts.
    """
    one_of("stage", stage, Stage)
    if not texts:
        raise DataError(f"{label}: holds no texts; expected at least one.")
    group = _group(model, encoding, "text", stage)
    digests = None if group is None else text_digests(texts, tokenizer)
    known = Known.of_texts(group, digests)
    todo = [index for index in range(len(texts)) if index not in known.positions]
    if digests is not None:  # each text once
        todo = sorted({digests[index]: index for index in reversed(todo)}.values())
    # Batches of about the same length: a short text is not padded to the longest of the set. The longest come first.
    todo = [todo[i] for i in _by_length([texts[index] for index in todo], tokenizer)]
    _tell(group, label, known, len(texts), todo)

    def share(batches: Sequence[Sequence[int]]) -> tuple[list[int], Tensor | None, list[tuple[int, str]]]:
        blocks: list[Tensor] = []
        total = sum(map(len, batches))
        with evaluating(model) as device, _bar(label, total, encoding) as advance, _flushed(group):
            for batch in batches:
                tokens = tokenizer([texts[index] for index in batch]).to(device)
                with _autocast(device, encoding):
                    block = _keep(model.encode_text(tokens, stage=stage))
                blocks.append(block)
                if group is not None and digests is not None:
                    _add(group, [Entry(texts[index], digests[index]) for index in batch], block)
                advance(len(batch))
        return [i for batch in batches for i in batch], torch.cat(blocks) if blocks else None, []

    indices, rows, _ = run_shares(share, todo, batch_size=encoding.batch_size)
    if digests is not None and len(todo) + len(known.positions) < len(texts) and rows is not None:
        place = {digests[index]: row for row, index in enumerate(indices)}
        indices = [index for index in range(len(texts)) if index not in known.positions]
        rows = rows[[place[digests[index]] for index in indices]]
    rows = known.join(indices, rows)[1]
    assert rows is not None
    return rows


def search(
    model: EvaluableModel,
    queries: Tensor,
    keys: Tensor,
    *,
    k: int,
    query_modality: Modality,
    key_modality: Modality,
    query_chunk: int = 512,
    key_chunk: int = 4096,
) -> tuple[Tensor, Tensor]:
    """The k best keys of every query, by the model's own scores, one block of scores at a time.

    Of equal scores the lower key comes first, so that the result does not depend on the chunks (as far as the
    scores themselves do not: a matrix product may round its last bit by its shape).

    Args:
        model: What scores them.
        queries: Embeddings (Q, D).
        keys: Embeddings (K, D), K >= 1.
        k: How many to keep; K when that is less.
        query_modality: What the queries are.
        key_modality: What the keys are.
        query_chunk: Queries per block.
        key_chunk: Keys per block.

    Returns:
        scores (Q, k) and key positions (Q, k) int64, best first, on the CPU.

    Raises:
        UserError: when the model's scores are NaN.
    """
    one_of("query_modality", query_modality, Modality)
    one_of("key_modality", key_modality, Modality)
    _refuse_nothing(queries, keys)
    found: list[tuple[Tensor, Tensor]] = []
    with evaluating(model) as device:
        for query in queries.split(query_chunk):
            query = query.to(device)
            best = BestKeys(k)
            for at in range(0, len(keys), key_chunk):
                part = keys[at : at + key_chunk].to(device)
                best.add(
                    model.scores(query, part, query_modality=query_modality, key_modality=key_modality), at
                )
            found.append(best.on_cpu())
    return _joined(found)


def search_both_ways(
    model: EvaluableModel,
    queries: Tensor,
    keys: Tensor,
    *,
    k: int,
    query_modality: Modality,
    key_modality: Modality,
    query_chunk: int = 512,
    key_chunk: int = 4096,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """:func:`search` for keys, and for queries with the keys' part and the queries' exchanged.

    Where the model ranks by a distance, which is the same from either side, each block of scores is computed once and
    read both ways; the k best of every key are held meanwhile. Else this is two searches.
    """
    one_of("query_modality", query_modality, Modality)
    one_of("key_modality", key_modality, Modality)
    ways: dict[str, Modality] = {"query_modality": query_modality, "key_modality": key_modality}
    if not getattr(getattr(model, "scorer", None), "ranks_by_distance", False):
        back: dict[str, Modality] = {"query_modality": key_modality, "key_modality": query_modality}
        there = search(model, queries, keys, k=k, query_chunk=query_chunk, key_chunk=key_chunk, **ways)
        return there, search(model, keys, queries, k=k, query_chunk=query_chunk, key_chunk=key_chunk, **back)
    _refuse_nothing(queries, keys)
    found: list[tuple[Tensor, Tensor]] = []
    with evaluating(model) as device:
        backward = [BestKeys(k) for _ in range(0, len(keys), key_chunk)]
        for start in range(0, len(queries), query_chunk):
            query = queries[start : start + query_chunk].to(device)
            best = BestKeys(k)
            for at, other in zip(range(0, len(keys), key_chunk), backward, strict=True):
                block = model.scores(query, keys[at : at + key_chunk].to(device), **ways)
                best.add(block, at)
                other.add(block.T, start)
            found.append(best.on_cpu())
        return _joined(found), _joined([best.on_cpu() for best in backward])


def _refuse_nothing(queries: Tensor, keys: Tensor) -> None:
    for name, given in (("queries", queries), ("keys", keys)):
        if len(given) == 0:
            raise ValueError(f"{name}: got none; expected at least one.")


def _joined(found: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([values for values, _ in found]), torch.cat([keys for _, keys in found])


def _group(
    model: EvaluableModel, encoding: Encoding, modality: Modality, stage: Stage, *, transform: str = ""
) -> StoredGroup | None:
    """Where such embeddings of this model are kept; None = nowhere."""
    store = encoding.store
    if store is None:
        return None
    if not store.serves(model):
        if not store.told and distributed.is_main():
            logger.warning(
                f"{store.folder}: is left alone, for the model that encodes {modality}s now is not the one whose "
                "embeddings it holds (its weights have changed, or something stands between)."
            )
        store.told = True
        return None
    return store.group(
        modality, stage, transform=transform, amp="" if encoding.amp is False else encoding.amp
    )


def _tell(group: StoredGroup | None, label: str, known: Known, count: int, todo: Sequence[int]) -> None:
    if group is not None and group.store.adds_up and distributed.is_main():
        rest = f"; {len(todo)} to encode" if todo else ""
        logger.info(f"{label}: {len(known.indices)} of {count} embeddings are in {group.folder}{rest}")


def _encode_images(
    model: EvaluableModel,
    batch: Sequence[Loaded],
    group: StoredGroup | None,
    *,
    device: torch.device,
    stage: Stage,
    encoding: Encoding,
) -> tuple[list[int], list[Tensor]]:
    """Positions and rows of the readable ones of a batch: encoded, or known by what the model sees."""
    readable = [(image, image.pixels) for image in batch if image.pixels is not None]
    places = [
        None if group is None or image.entry is None else group.find_digest(image.entry.digest)
        for image, _ in readable
    ]
    new = [pair for pair, place in zip(readable, places, strict=True) if place is None]
    old = [(image, place) for (image, _), place in zip(readable, places, strict=True) if place is not None]
    blocks: list[Tensor] = []
    if new:
        stack = torch.stack([pixels for _, pixels in new])  # (B, 3, H, W)
        with _autocast(device, encoding):
            block = _keep(model.encode_image(stack.to(device), stage=stage))
        blocks.append(block)
        if group is not None:
            _add(group, [image.entry for image, _ in new if image.entry is not None], block)
    if old and group is not None:
        group.store.taken += len(old)
        block = group.rows([place for _, place in old])
        blocks.append(block)
        if group.store.writes:  # so that the id is known next time
            for (image, _), row in zip(old, block, strict=True):
                if image.entry is not None and image.entry.id:
                    group.add(image.entry, row)
    return [image.index for image, _ in new] + [image.index for image, _ in old], blocks


def _add(group: StoredGroup, entries: Sequence[Entry], rows: Tensor) -> None:
    group.store.encoded += len(rows)
    if group.store.writes:
        for entry, row in zip(entries, rows, strict=True):
            group.add(entry, row)


@contextmanager
def _flushed(group: StoredGroup | None) -> Iterator[None]:
    """What was added inside is on the disk afterwards, whatever happened."""
    try:
        yield
    finally:
        if group is not None and group.store.writes:
            group.flush()


def _by_length(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """Positions of texts from the longest to the shortest, in their tokens."""
    lengths: list[int] = []
    for start in range(0, len(texts), 1024):
        lengths += (tokenizer(texts[start : start + 1024]) != 0).sum(dim=1).tolist()
    return sorted(range(len(texts)), key=lambda i: -lengths[i])


def text_digests(texts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """What a store knows each text by."""
    blocks = [tokenizer(texts[start : start + 1024]) for start in range(0, len(texts), 1024)]
    return [text_digest(row) for block in blocks for row in block.tolist()]


def _check_bad(bad: list[tuple[int, str]], total: int, encoding: Encoding, label: str) -> None:
    if len(bad) > encoding.max_bad_fraction * total:
        raise DataError(
            f"{label}: at least {len(bad)} of {total} images cannot be read, more than max_bad_fraction="
            f"{encoding.max_bad_fraction:g}; repair the files or raise encoding.max_bad_fraction. "
            f"The first: {bad[0][1]}"
        )


def _keep(block: Tensor) -> Tensor:
    """To the CPU, halves as fp32 (fp64 stays)."""
    return (block.float() if block.dtype in _HALF.values() else block).cpu()


def _autocast(device: torch.device, encoding: Encoding) -> torch.autocast:
    dtype = None if encoding.amp is False else _HALF[encoding.amp]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def _bar(label: str, total: int, encoding: Encoding) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    if not (encoding.progress and console.is_terminal and distributed.is_main()):
        yield lambda done: None  # rich < 14.3 ends a bar with an empty line even where it is disabled
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task(printable(label), total=total)
        yield lambda done: progress.advance(task, done)
