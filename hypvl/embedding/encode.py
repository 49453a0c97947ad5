"""Encode every image and text of a data set once: in batches, by worker processes, on all ranks, from a store.

Memory: the embeddings, (N + K) x D, and the images of one batch per worker.

With a store, what has been encoded before is taken from it. Under a process group each rank encodes its share of the
batches, the same batches as in one process, and every rank gets all embeddings.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from loguru import logger
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import none_of, number, one_of, setting, whole_number, whole_number_or_none
from hypvl.data import tokenizer as clip
from hypvl.datasets.protocol import ImageSource
from hypvl.embedding.distributed_encode import Encoded, cache_hits, join, run_shares
from hypvl.embedding.loading import Loaded, load_batches
from hypvl.embedding.protocol import (
    EvaluableModel,
    Modality,
    Stage,
    Tokenizer,
    evaluating,
    own_tokenizer,
)
from hypvl.embedding.store import EmbeddingStore, Place, StoredGroup
from hypvl.embedding.store_files import Entry, text_digest
from hypvl.errors import DataError
from hypvl.io.progress import terminal_bar

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_TEXTS_AT_ONCE = 1024  # for the tokenizer
Amp: TypeAlias = Literal["bf16", "fp16", False]


@configurable("evaluate")
@dataclass(frozen=True)
class Encoding:
    """How images and texts are run through a model."""

    batch_size: int = 256  # images, or texts, per forward pass
    # Processes that read and resize images; 0 = none beside this one; None = see ``workers``.
    num_workers: int | None = None
    amp: Amp = False  # autocast of the encoders; the geometry keeps its own precision
    progress: bool = True  # show a progress bar on standard error (where that is a terminal)
    max_bad_fraction: float = 0.1  # share of images in [0, 1] that may be unreadable before this is an error

    def __post_init__(self) -> None:
        one_of("amp", self.amp, Amp)
        whole_number("batch_size", self.batch_size, least=1)
        whole_number_or_none("num_workers", self.num_workers, least=0)
        number("max_bad_fraction", self.max_bad_fraction, least=0, most=1)

    @property
    def workers(self) -> int:
        """``num_workers``, or 4, or the number of processors that this process may use if that is less."""
        if self.num_workers is not None:
            return self.num_workers
        own = hasattr(os, "sched_getaffinity")
        return min(4, len(os.sched_getaffinity(0)) if own else os.cpu_count() or 1)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context that encoders run in."""
        dtype = None if self.amp is False else _HALF[self.amp]
        return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)

    def check_unreadable(self, label: str, bad: Sequence[tuple[int, str]], *, total: int) -> None:
        """Raises DataError when more than ``max_bad_fraction`` of the images cannot be read."""
        if len(bad) > self.max_bad_fraction * total:
            raise DataError(
                f"{label}: at least {len(bad)} of {total} images cannot be read, more than max_bad_fraction="
                f"{self.max_bad_fraction:g}; repair the files or raise "
                f"{setting('max_bad_fraction', key='encoding.max_bad_fraction')}. The first: {bad[0][1]}"
                if self.max_bad_fraction
                else f"{label}: at least {len(bad)} of {total} images cannot be read, and each has to be: repair it "
                f"or leave it out. The first: {bad[0][1]}"
            )


@dataclass(frozen=True)
class EncodedImages:
    """Embeddings of the images that could be read."""

    embeddings: Tensor  # (N, D), on the CPU
    indices: Tensor  # (N,) int64, the position of each in the data set, ascending
    bad: list[tuple[int, str]]  # (position, reason) of those that could not be read


class CachedEncoder:
    """Runs images and texts through a model, and takes from a store what it has encoded before.

    Args:
        encoding: Batches, workers, precision; None = the defaults.
        tokenizer: Of texts; None = the model's own, or CLIP's with the model's context length where it has none.
        store: Embeddings of this model; in write mode what is encoded is added. None = everything is encoded.
            A store of another model is not used, with one warning.
    """

    def __init__(
        self,
        model: EvaluableModel,
        *,
        encoding: Encoding | None = None,
        tokenizer: Tokenizer | None = None,
        store: EmbeddingStore | None = None,
    ) -> None:
        self.model = model
        self.encoding = Encoding() if encoding is None else encoding
        self.unreadable: list[tuple[int, str]] = []  # (position, reason) of images, of all calls so far
        self.transforms: list[str] = []  # what images went through, of all calls so far
        self._tokenizer = tokenizer
        self._store = store

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of texts."""
        if self._tokenizer is None:
            self._tokenizer = own_tokenizer(self.model)
        return self._tokenizer

    def encode_images(
        self,
        images: ImageSource,
        *,
        transform: Callable[[Tensor], Tensor],
        stage: Stage = "embeddings",
        label: str = "images",
    ) -> EncodedImages:
        """Encode images by position, skipping those that cannot be read.

        Args:
            images: Images, uint8 (3, h, w) each.
            transform: To uint8 (3, size, size), all of one size; run in the workers.
            label: What the progress bar says.

        Raises:
            DataError: when there are no images, or more than ``max_bad_fraction`` of them are unreadable.
        """
        one_of("stage", stage, Stage)
        count = len(images)
        if count == 0:
            raise DataError(f"{label}: holds no images; expected at least one.")
        # Without a repr that names it, a transform cannot be compared: images are then found by their digest alone.
        name = "" if _ADDRESS.search(repr(transform)) else repr(transform)
        if name and name not in self.transforms:
            self.transforms.append(name)
        group = self._group("image", stage, transform=name)
        ids: Sequence[str] | None = getattr(images, "ids", None) if group is not None and name else None
        hits = Encoded() if group is None or ids is None else cache_hits(group, ids, by_digest=False)
        positions = hits.positions
        todo = [index for index in range(count) if index not in positions]
        _log_hits(group, label, len(hits.indices), count, len(todo))

        def share(batches: Sequence[Sequence[int]]) -> Encoded:
            indices: list[int] = []
            blocks: list[Tensor] = []
            broken: list[Loaded] = []
            if group is not None:
                group.refresh()  # for images that are found by their digest
            loader = load_batches(
                images,
                batches,
                transform=transform,
                num_workers=self.encoding.workers,
                ids=ids,
                thumbnails=None if group is None else group.store.thumbnails,
            )
            with evaluating(self.model) as device, self._running(label, batches, group) as advance:
                for batch in loader if batches else ():
                    readable, rows = self._encode_batch(batch, group, stage=stage, device=device)
                    indices += readable
                    blocks += rows
                    broken += [image for image in batch if image.pixels is None]
                    bad = hits.bad + [(image.index, image.reason) for image in broken]
                    self.encoding.check_unreadable(label, bad, total=count)
                    advance(len(batch))
                for image in broken:
                    if group is not None and image.entry is not None:
                        group.add_unreadable(image.entry, image.reason)
            bad = [(image.index, image.reason) for image in broken]
            return Encoded(indices, torch.cat(blocks) if blocks else None, bad)

        encoded = join(hits, run_shares(share, todo, batch_size=self.encoding.batch_size))
        self.encoding.check_unreadable(label, encoded.bad, total=count)
        if encoded.rows is None:
            raise DataError(
                f"{label}: {none_of(count, 'image', 'can be read', 'cannot be read')}; the first: {encoded.bad[0][1]}"
            )
        self.unreadable += encoded.bad
        return EncodedImages(encoded.rows, torch.tensor(encoded.indices, dtype=torch.int64), encoded.bad)

    def encode_texts(
        self, texts: Sequence[str], *, stage: Stage = "embeddings", label: str = "texts"
    ) -> Tensor:
        """Encode texts in their order: (N, D), on the CPU. Raises DataError when there are none."""
        one_of("stage", stage, Stage)
        if not texts:
            raise DataError(f"{label}: holds no texts; expected at least one.")
        group = self._group("text", stage)
        digests = None if group is None else text_digests(texts, self.tokenizer)
        hits = Encoded() if group is None or digests is None else cache_hits(group, digests, by_digest=True)
        positions = hits.positions
        missing = [index for index in range(len(texts)) if index not in positions]
        todo = missing
        if digests is not None:  # each text once
            todo = sorted({digests[index]: index for index in reversed(missing)}.values())
        # Batches of texts of about the same length need little padding. The longest come first.
        todo = [todo[i] for i in _longest_first([texts[index] for index in todo], self.tokenizer)]
        _log_hits(group, label, len(hits.indices), len(texts), len(todo))

        def share(batches: Sequence[Sequence[int]]) -> Encoded:
            blocks: list[Tensor] = []
            with evaluating(self.model) as device, self._running(label, batches, group) as advance:
                for batch in batches:
                    tokens = self.tokenizer([texts[index] for index in batch]).to(device)
                    with self.encoding.autocast(device):
                        block = _on_cpu(self.model.encode_text(tokens, stage=stage))
                    blocks.append(block)
                    if group is not None and digests is not None:
                        _add(group, [Entry(texts[index], digests[index]) for index in batch], block)
                    advance(len(batch))
            return Encoded([i for batch in batches for i in batch], torch.cat(blocks) if blocks else None)

        encoded = run_shares(share, todo, batch_size=self.encoding.batch_size)
        if digests is not None and len(todo) < len(missing) and encoded.rows is not None:
            row_of = {digests[index]: row for row, index in enumerate(encoded.indices)}
            encoded = Encoded(missing, encoded.rows[[row_of[digests[index]] for index in missing]])
        rows = join(hits, encoded).rows
        assert rows is not None
        return rows

    def truncation(self, texts: Sequence[str]) -> dict[str, Any]:
        """Entries for a result's meta: how many texts the tokenizer cuts, and a warning where it does.

        Returns:
            ``context_length``; ``captions_cut`` and ``captions_cut_percent``, None for a tokenizer that is not
            hypvl's; and where any are cut ``warnings``, a list of one sentence.
        """
        if not isinstance(self.tokenizer, clip.Tokenizer):
            length = getattr(self.tokenizer, "context_length", None)
            return {"context_length": length, "captions_cut": None, "captions_cut_percent": None}
        length = self.tokenizer.context_length
        longer = clip.get_tokenizer(length + 1)
        cut = sum(len(longer.encode(text)) > length for text in texts)
        percent = 100.0 * cut / len(texts) if texts else 0.0
        meta: dict[str, Any] = {
            "context_length": length,
            "captions_cut": cut,
            "captions_cut_percent": percent,
        }
        if cut:
            meta["warnings"] = [
                f"{cut} of {len(texts)} captions ({percent:.1f} %) are longer than the model's context of {length} "
                "tokens and were cut: their ends do not count."
            ]
        return meta

    def _encode_batch(
        self, batch: Sequence[Loaded], group: StoredGroup | None, *, stage: Stage, device: torch.device
    ) -> tuple[list[int], list[Tensor]]:
        """Positions and rows of the readable images of a batch: encoded, or stored of an image the model sees alike."""
        new: list[tuple[Loaded, Tensor]] = []
        old: list[tuple[Loaded, Place]] = []
        for image in batch:
            if image.pixels is None:
                continue
            place = None
            if group is not None and image.entry is not None:
                place = group.find_digest(image.entry.digest)
            if place is None:
                new.append((image, image.pixels))
            else:
                old.append((image, place))
        blocks: list[Tensor] = []
        if new:
            stack = torch.stack([pixels for _, pixels in new])  # (B, 3, H, W)
            with self.encoding.autocast(device):
                block = _on_cpu(self.model.encode_image(stack.to(device), stage=stage))
            blocks.append(block)
            if group is not None:
                _add(group, [image.entry for image, _ in new if image.entry is not None], block)
        if old and group is not None:
            group.store.reused += len(old)
            block = group.rows([place for _, place in old])
            blocks.append(block)
            if group.store.writes:  # so that the id is known next time
                for (image, _), row in zip(old, block, strict=True):
                    if image.entry is not None and image.entry.id:
                        group.add(image.entry, row)
        return [image.index for image, _ in new] + [image.index for image, _ in old], blocks

    def _group(self, modality: Modality, stage: Stage, *, transform: str = "") -> StoredGroup | None:
        """Where such embeddings of this model are stored; None = nowhere."""
        store = self._store
        if store is None:
            return None
        if not store.serves(self.model):
            if not store.warned and distributed.is_main():
                logger.warning(
                    f"{store.folder}: not used, for the model that encodes {modality}s now is not the one whose "
                    "embeddings it holds (its weights have changed, or another object wraps it)."
                )
            store.warned = True
            return None
        amp = "" if self.encoding.amp is False else self.encoding.amp
        return store.group(modality, stage, transform=transform, amp=amp)

    @contextmanager
    def _running(
        self, label: str, batches: Sequence[Sequence[int]], group: StoredGroup | None
    ) -> Iterator[Callable[[int], None]]:
        """A progress bar inside; afterwards what was added to the store is on the disk, whatever happened."""
        total, done = sum(map(len, batches)), 0
        try:
            with terminal_bar(label, shown=self.encoding.progress and distributed.is_main()) as move_bar:

                def advance(count: int) -> None:
                    nonlocal done
                    done += count
                    move_bar(done, total)

                yield advance
        finally:
            if group is not None and group.store.writes:
                group.flush()


def text_digests(texts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """What a store knows each text by."""
    pad = clip.pad_token_of(tokenizer)
    return [
        text_digest(row, pad_token=pad) for block in _token_blocks(texts, tokenizer) for row in block.tolist()
    ]


def _token_blocks(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[Tensor]:
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        yield tokenizer(texts[start : start + _TEXTS_AT_ONCE])


def _log_hits(group: StoredGroup | None, label: str, hits: int, count: int, todo: int) -> None:
    if group is not None and not group.store.single_shard and distributed.is_main():
        rest = f"; {todo} to encode" if todo else ""
        logger.info(f"{label}: {hits} of {count} embeddings are in {group.folder}{rest}")


def _add(group: StoredGroup, entries: Sequence[Entry], rows: Tensor) -> None:
    group.store.encoded += len(rows)
    if group.store.writes:
        for entry, row in zip(entries, rows, strict=True):
            group.add(entry, row)


def _longest_first(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """Positions of texts from the longest to the shortest, in tokens."""
    pad = clip.pad_token_of(tokenizer)
    lengths = [n for block in _token_blocks(texts, tokenizer) for n in (block != pad).sum(dim=1).tolist()]
    return sorted(range(len(texts)), key=lambda i: -lengths[i])


def _on_cpu(block: Tensor) -> Tensor:
    """Half precision becomes fp32; fp64 stays."""
    return (block.float() if block.dtype in _HALF.values() else block).cpu()
