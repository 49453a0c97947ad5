"""Batches: what the loader hands to a training step."""

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import Tensor

from hypvl.data.sample import Sample


class Batch(TypedDict):
    """One micro-batch of one rank, B samples.

    ``index`` is the row a sample came from, ``position`` its place in the endless sequence of samples; ``bad``
    lists (key, reason) of the rows that had to be replaced while this batch was made. Every text comes with its
    lengths (``text_lengths``, ``negative_text_lengths``, ...): arrays, which stay on the host when tensors move.
    """

    image: Tensor  # (B, 3, h, w) uint8
    text: Tensor  # (B, L) int64, padded at the end
    text_lengths: np.ndarray  # (B,) int64
    index: Tensor  # (B,) int64
    position: Tensor  # (B,) int64
    key: list[str]
    bad: list[tuple[str, str]]
    negative_text: NotRequired[Tensor]  # (B*K, L) int64
    negative_mask: NotRequired[Tensor]  # (B, K) bool
    box_image: NotRequired[Tensor]  # (B, 3, h, w) uint8; (M, 3, h, w) with box_owner
    box_text: NotRequired[Tensor]  # (B, L) int64; (M, L) with box_owner
    box_owner: NotRequired[np.ndarray]  # (M,) int64, the sample (0 to B - 1) of each box, ascending; M >= 0
    box_corners: NotRequired[Tensor]  # (M, 4), left, top, right, bottom in fractions of the image, or NaN
    query_text: NotRequired[Tensor]  # (Q, L) int64, with query_owner (Q,) as boxes have box_owner
    query_parent: NotRequired[np.ndarray]  # (Q,) int64, the row of each query's parent among the Q, or -1
    query_weight: NotRequired[Tensor]  # (Q,) float32
    short_text: NotRequired[Tensor]  # (B, L) int64
    augmented_image: NotRequired[Tensor]  # (B, 3, h, w) uint8
    augmented_text: NotRequired[Tensor]  # (B, L) int64
    labels: NotRequired[Tensor]
    crops: NotRequired[list[Tensor]]  # (B, 3, h, w) uint8 each, of any sizes


def pad_rows(rows: Sequence[Tensor], *, pad_token: int = 0) -> Tensor:
    """Stack token rows of different lengths: int64 (L_i,) each -> (B, L), filled with ``pad_token`` at the end."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=pad_token)


def row_lengths(rows: Tensor, *, pad_token: int = 0) -> np.ndarray:
    """Tokens of each row up to its last that is not padding, at least 1: (B, L) on the CPU -> (B,) int64."""
    real = rows.numpy() != pad_token  # (B, L)
    return np.maximum(np.where(real, np.arange(1, real.shape[1] + 1), 0).max(axis=1, initial=0), 1)


def collate(
    samples: Sequence[Sample],
    *,
    positions: Sequence[int],
    rows: Sequence[int],
    bad: Sequence[tuple[str, str]] = (),
    pad_token: int = 0,
) -> Batch:
    """Join samples into a batch.

    ``text`` and every ``*_text`` are padded, (L,) rows to (B, L) and (K, L) blocks to (B*K, L), and their lengths put
    beside them, which costs nothing here and would stop a device later; other tensors
    and arrays of numbers are stacked, numbers become a tensor, anything else a list. ``pad_token`` is the tokenizer's.

    A field ``<group>_owner`` (m,) says that the tensors ``<group>_*`` have m rows in this sample, any number: they are
    joined row after row, (M, ...), and ``<group>_owner`` (M,) of the batch is the sample of each. Of ``<group>_parent``
    (m,), places within the sample or -1 for none, the batch has the rows, (M,).

    Raises:
        ValueError: when a field is not in every sample, or its tensors differ in shape, or in rows within a group.
    """
    batch: dict[str, Any] = {}
    groups = {name.removesuffix("_owner") for sample in samples for name in sample if name.endswith("_owner")}
    for name in dict.fromkeys(name for sample in samples for name in sample):
        missing = [sample["key"] for sample in samples if name not in sample]
        if missing:
            raise ValueError(f"collate: sample {missing[0]} has no {name!r}, which others of its batch have.")
        group, values = name.rpartition("_")[0], [sample[name] for sample in samples]
        if name == f"{group}_owner":
            batch[name] = np.repeat(np.arange(len(samples)), [len(value) for value in values])
            continue
        if group in groups and isinstance(values[0], Tensor):
            for sample in samples:
                _check_rows(sample, name, group)
            if name == f"{group}_parent":
                batch[name] = _join_parents(values)
            else:
                batch[name] = _join_rows(name, values, pad_token=pad_token)
        else:
            batch[name] = _join(name, values, pad_token=pad_token)
        if _is_text(name) and isinstance(batch[name], Tensor):
            batch[f"{name}_lengths"] = row_lengths(batch[name], pad_token=pad_token)
    batch["index"] = torch.tensor(list(rows), dtype=torch.int64)
    batch["position"] = torch.tensor(list(positions), dtype=torch.int64)
    batch["bad"] = list(bad)
    return cast(Batch, batch)


def _check_rows(sample: Sample, name: str, group: str) -> None:
    rows, expected = len(sample[name]), len(sample[f"{group}_owner"])
    if rows != expected:
        raise ValueError(
            f"collate: sample {sample['key']} has {rows} rows of {name!r}, but {expected} of '{group}_owner'; give the "
            "same number."
        )


def _join_rows(name: str, values: list[Tensor], *, pad_token: int) -> Tensor:
    """Rows of all samples, (m_i, ...) each, as (M, ...)."""
    values = [value for value in values if len(value)] or values[:1]
    if _is_text(name) and len(values[0]):
        return pad_rows([row for value in values for row in value], pad_token=pad_token)
    _check_shapes(name, [value.shape[1:] for value in values])
    return torch.cat(values)


def _join_parents(values: list[Tensor]) -> np.ndarray:
    """Places within each sample as rows of the batch; -1 stays."""
    places = np.concatenate([value.numpy() for value in values])
    counts = [len(value) for value in values]
    before = np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    return np.where(places < 0, -1, places + before)


def _check_shapes(name: str, shapes: Sequence[torch.Size]) -> None:
    if len(set(shapes)) > 1:
        listed = ", ".join(sorted({str(tuple(shape)) for shape in shapes}))
        raise ValueError(f"collate: {name!r} has different shapes in one batch ({listed}); make them equal.")


def _is_text(name: str) -> bool:
    return name == "text" or name.endswith("_text")


def _join(name: str, values: list[Any], *, pad_token: int) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        if _is_text(name):
            rows = [row for value in values for row in (value if value.ndim == 2 else value[None])]
            return pad_rows(rows, pad_token=pad_token)
        _check_shapes(name, [value.shape for value in values])
        return torch.stack(values)
    if name == "crops":
        return [torch.stack(crops) for crops in zip(*values, strict=True)]
    if all(isinstance(value, bool | int | float) for value in values):
        return torch.tensor(values)
    return values
