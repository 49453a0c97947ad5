"""Encode every picture and text of a data set once, and search a gallery without holding all scores.

Memory: the embeddings, (N + K) x D; the pictures of one batch per worker; and of the scores one block of
``query_chunk x key_chunk`` with the ``k`` best of a chunk of queries. Nothing grows with N x K.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hypvl.errors import DataError, UserError
from hypvl.evaluation.metrics.ranking import rank_keys
from hypvl.evaluation.protocol import EvaluableModel, ImageSource, Modality, Stage, Tokenizer

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _processors() -> int:
    """Those this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Encoding:
    """How pictures and texts are run through a model.

    Args:
        batch_size: Pictures, or texts, per forward pass.
        num_workers: Processes that read and resize pictures; 0 = none beside this one. Default: 4, or as many
            as there are processors.
        amp: Autocast of the encoders; the geometry keeps its own precision.
        progress: Show a progress bar on standard error (where that is a terminal).
        max_bad_fraction: Share of pictures in [0, 1] that may be unreadable before this is an error.
    """

    batch_size: int = 256
    num_workers: int = field(default_factory=lambda: min(4, _processors()))
    amp: Literal["bf16", "fp16", False] = False
    progress: bool = True
    max_bad_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_workers < 0 or not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(
                f"Encoding: got batch_size={self.batch_size}, num_workers={self.num_workers}, max_bad_fraction="
                f"{self.max_bad_fraction}; expected batch_size >= 1, num_workers >= 0, max_bad_fraction in [0, 1]."
            )
        if self.amp is not False and self.amp not in _HALF:
            raise ValueError(f"Encoding: got amp={self.amp!r}; expected 'bf16', 'fp16' or False.")


@dataclass(frozen=True)
class EncodedImages:
    """Embeddings of the pictures that could be read.

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
    """Encode pictures by position, skipping those that cannot be read.

    Args:
        model: What encodes them.
        images: Pictures, uint8 (3, h, w) each.
        transform: To uint8 (3, size, size), all of one size; run in the workers.
        encoding: Batches, workers, precision.
        stage: What to keep of the model.
        label: What the progress bar says.

    Raises:
        DataError: when there are no pictures, or more than ``max_bad_fraction`` of them are unreadable.
    """
    if len(images) == 0:
        raise DataError(f"{label}: holds no pictures; expected at least one.")
    loader = DataLoader(
        _Loaded(images, transform),
        batch_size=encoding.batch_size,
        num_workers=min(encoding.num_workers, len(images)),
        collate_fn=_collate,
        generator=torch.Generator(),  # the loader seeds its workers from it; the main generator stays as it is
    )
    blocks: list[Tensor] = []
    indices: list[int] = []
    bad: list[tuple[int, str]] = []
    with evaluating(model) as device, _bar(label, len(images), encoding) as advance:
        for stack, good, broken in loader:
            bad += broken
            _check_bad(bad, len(images), encoding, label)
            if good:
                with _autocast(device, encoding):
                    block = model.encode_image(stack.to(device), stage=stage)
                blocks.append(_keep(block))
                indices += good
            advance(len(good) + len(broken))
    if not blocks:
        raise DataError(f"{label}: none of its {len(images)} pictures can be read; the first: {bad[0][1]}")
    return EncodedImages(torch.cat(blocks), torch.tensor(indices, dtype=torch.int64), bad)


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
    if not texts:
        raise DataError(f"{label}: holds no texts; expected at least one.")
    blocks: list[Tensor] = []
    with evaluating(model) as device, _bar(label, len(texts), encoding) as advance:
        for start in range(0, len(texts), encoding.batch_size):
            batch = texts[start : start + encoding.batch_size]
            tokens = tokenizer(batch).to(device)
            with _autocast(device, encoding):
                block = model.encode_text(tokens, stage=stage)
            blocks.append(_keep(block))
            advance(len(batch))
    return torch.cat(blocks)


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
    for name, given in (("queries", queries), ("keys", keys)):
        if len(given) == 0:
            raise ValueError(f"{name}: got none; expected at least one.")
    values: list[Tensor] = []
    columns: list[Tensor] = []
    with evaluating(model) as device:
        for query in queries.split(query_chunk):
            query = query.to(device)
            best = torch.empty(len(query), 0, device=device)
            where = torch.empty(len(query), 0, dtype=torch.int64, device=device)
            for at in range(0, len(keys), key_chunk):
                block = model.scores(
                    query,
                    keys[at : at + key_chunk].to(device),
                    query_modality=query_modality,
                    key_modality=key_modality,
                )  # (q, chunk)
                check_scores(block)
                top = rank_keys(block, k)
                # The kept ones stand first and have lower columns: the order of ties stays right.
                best = torch.cat([best.to(block.dtype), block.gather(1, top)], dim=1)
                where = torch.cat([where, top + at], dim=1)
                order = rank_keys(best, k)
                best, where = best.gather(1, order), where.gather(1, order)
            values.append(best.cpu())
            columns.append(where.cpu())
    return torch.cat(values), torch.cat(columns)


def check_scores(scores: Tensor) -> None:
    """Refuse NaN, which is what a model that has diverged gives: it would come out as some accuracy.

    Raises:
        UserError: naming the share of NaN.
    """
    bad = int(scores.isnan().sum())
    if bad:
        raise UserError(
            f"the model's scores: {bad} of {scores.numel()} in a block are NaN; expected numbers. "
            "Its weights have probably diverged: evaluate an earlier checkpoint."
        )


class _Loaded(Dataset[tuple[int, Tensor | None, str]]):
    """Reads and transforms one picture; a failure is a value here, to be counted."""

    def __init__(self, images: ImageSource, transform: Callable[[Tensor], Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None, str]:
        try:
            image = self.images[index]
        except DataError as error:
            return index, None, str(error)
        return index, self.transform(image), ""


_Batch = tuple[Tensor, list[int], list[tuple[int, str]]]


def _collate(samples: list[tuple[int, Tensor | None, str]]) -> _Batch:
    pictures = [picture for _, picture, _ in samples if picture is not None]
    stack = torch.stack(pictures) if pictures else torch.empty(0, dtype=torch.uint8)  # (B, 3, H, W)
    good = [index for index, picture, _ in samples if picture is not None]
    return stack, good, [(index, reason) for index, picture, reason in samples if picture is None]


def _check_bad(bad: list[tuple[int, str]], total: int, encoding: Encoding, label: str) -> None:
    if len(bad) > encoding.max_bad_fraction * total:
        raise DataError(
            f"{label}: at least {len(bad)} of {total} pictures cannot be read, more than max_bad_fraction="
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
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (encoding.progress and console.is_terminal),
        transient=True,
    ) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.advance(task, done)
