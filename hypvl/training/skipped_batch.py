"""What is kept of a batch whose step was not finite: some of its samples, in a file of bounded size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypvl.io.tensors import write_torch

#: Largest sum of the tensors of one file, in bytes.
MAX_BYTES = 64 << 20


def dump_name(rank: int) -> str:
    """File of a rank in the run's folder."""
    return f"skipped_batch_rank{rank}.pt"


def write_dump(
    path: Path, batches: Sequence[tuple[Mapping[str, Any], Sequence[int]]], *, about: Mapping[str, Any],
    max_bytes: int = MAX_BYTES,
) -> None:  # fmt: skip
    """Write samples of batches to a file that ``torch.load(path, weights_only=True)`` reads.

    Args:
        path: The file, which appears whole or not at all; its folder is made.
        batches: Each with the rows that are kept first; the others follow in order, as far as there is room.
        about: Plain values of the file beside ``batches``: a list with the tensors, keys and positions of each batch,
            where ``row`` says which rows of the batch they were and ``left_out`` names entries that have no rows.
        max_bytes: Largest sum of all tensors; of a batch that has no room keys and positions are kept.

    Raises:
        OSError: when it cannot be written.
    """
    kept, room = [], max_bytes
    for batch, first in batches:
        part = take_first(batch, first, max_bytes=room)
        room -= _bytes(part)
        kept.append(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_torch(path, {**about, "batches": kept})


def sample_count(batch: Mapping[str, Any]) -> int:
    """B, the samples of a batch."""
    for name in ("position", "index", "key", "image", "text"):
        if name in batch:
            return len(batch[name])
    return 0


def sample_names(batch: Mapping[str, Any]) -> list[str]:
    """The key of each sample; "row 0" ... where the batch has no keys."""
    if "key" in batch:
        return [str(key) for key in batch["key"]]
    return [f"row {row}" for row in range(sample_count(batch))]


def take_first(batch: Mapping[str, Any], first: Sequence[int], *, max_bytes: int) -> dict[str, Any]:
    """As many samples of a batch as fit, those of ``first`` before the others, on the CPU."""
    count = sample_count(batch)
    order = [*dict.fromkeys(first), *(row for row in range(count) if row not in set(first))]
    whole, _ = _take(batch, list(range(count)), count)
    fitting = count if (size := _bytes(whole)) <= max_bytes else max_bytes * count // size
    while fitting:  # samples differ in size: boxes
        kept, left_out = _take(batch, order[:fitting], count)
        if _bytes(kept) <= max_bytes:
            return {**kept, "row": order[:fitting], "left_out": left_out}
        fitting //= 2
    names = {name: batch[name] for name in ("key", "position") if name in batch}
    return {**_take(names, order, count)[0], "row": order, "left_out": sorted(set(batch) - set(names))}


def _take(batch: Mapping[str, Any], rows: list[int], count: int) -> tuple[dict[str, Any], list[str]]:
    """Some samples of a batch, and the entries that have no rows of samples."""
    owners = {
        name.removesuffix("_owner"): torch.as_tensor(value).cpu()
        for name, value in batch.items()
        if name.endswith("_owner")
    }
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in batch.items():
        group = next((group for group in owners if name.startswith(f"{group}_")), None)
        if group is not None and isinstance(value, Tensor | np.ndarray):
            kept[name] = _of_owners(name, torch.as_tensor(value).cpu(), owners[group], rows)
        elif isinstance(value, Mapping):
            kept[name], inside = _take(value, rows, count)
            left_out += [f"{name}.{entry}" for entry in inside]
        elif (taken := _of_samples(value, rows, count)) is not None:
            kept[name] = taken
        else:
            left_out.append(name)
    return kept, left_out


def _of_owners(name: str, value: Tensor, owner: Tensor, rows: list[int]) -> Tensor:
    """Rows of a group, of which a sample has any number, in the order of the samples."""
    at = torch.cat([torch.nonzero(owner == row)[:, 0] for row in rows])
    if name.endswith("_owner"):
        return torch.arange(len(rows)).repeat_interleave(
            torch.tensor([int((owner == row).sum()) for row in rows])
        )
    if name.endswith("_parent"):  # places among the rows that were kept
        place = torch.full((len(owner) + 1,), -1).index_copy(0, at, torch.arange(len(at)))
        return place[value[at]]
    return value[at]


def _of_samples(value: Any, rows: list[int], count: int) -> Any:
    """Rows of an entry; None where it has none."""
    if isinstance(value, Tensor | np.ndarray):
        tensor = torch.as_tensor(value)
        if not tensor.ndim or not count or not len(tensor) or len(tensor) % count:
            return None
        return tensor.detach().unflatten(0, (count, -1))[rows].flatten(0, 1).cpu()
    if isinstance(value, list) and value and all(isinstance(item, Tensor) for item in value):  # crops
        taken = [_of_samples(item, rows, count) for item in value]
        return None if any(item is None for item in taken) else taken
    is_plain = isinstance(value, list) and all(isinstance(item, str | int | float | None) for item in value)
    return [value[row] for row in rows] if is_plain and len(value) == count else None


def _bytes(value: Any) -> int:
    """Of all tensors in nested mappings and lists."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list) else 0
