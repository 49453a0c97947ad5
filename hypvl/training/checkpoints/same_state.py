"""Whether two checkpoints hold the same state of a run, bit for bit."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

#: Entries of a checkpoint that say where and when it was trained, not what it has learned.
ABOUT = ("provenance", "config")
# Seconds that the run took, among what it has seen since the last record.
_TIMES = ("seconds", "data_seconds")


def state_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Where two checkpoints differ, as dotted keys; empty for the same state.

    Tensors are equal when type, shape and every bit are, so that NaN equals itself and 0 is not -0. Config, provenance
    and times are not compared.

    Args:
        first: What :func:`hypvl.models.checkpoint_io.load_checkpoint` returns, or a part of it.
        second: Likewise.

    Example:
        >>> one, two = {"model": {"w": torch.zeros(2)}}, {"model": {"w": torch.tensor([0.0, -0.0])}}
        >>> state_differences(one, two)
        ['model.w']
    """
    one, two = ({k: v for k, v in side.items() if k not in ABOUT} for side in (first, second))
    return list(_differences("", one, two))


def _differences(path: str, first: Any, second: Any) -> Iterator[str]:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in dict.fromkeys([*first, *second]):
            if key in _TIMES:
                continue
            inner = f"{path}.{key}" if path else str(key)
            if key in first and key in second:
                yield from _differences(inner, first[key], second[key])
            else:
                yield inner
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        for i, (one, two) in enumerate(zip(first, second, strict=True)):
            yield from _differences(f"{path}.{i}", one, two)
    elif not _same(first, second):
        yield path


def _same(first: Any, second: Any) -> bool:
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return type(first) is type(second) and bool(first == second)
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    one, two = (x.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for x in (first, second))
    return torch.equal(one, two)
