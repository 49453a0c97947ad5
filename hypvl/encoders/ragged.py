"""Texts of different lengths in one pass: sorted by length and cut into groups, each padded to its longest text.

The tokens of all groups are concatenated to one matrix (T, W): linear layers and norms run once, on hardly any
padding. Attention takes each group as a plain (rows, length) batch, without copies or masks.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

#: (rows, length) of each group, shortest first; a group is rows * length tokens, row after row.
Groups: TypeAlias = Sequence[tuple[int, int]]

# Cost of one more group (calls of attention and its gradient), in tokens of padding that take as long. On a CPU a call
# takes the time of a token or two; on a GPU a token takes far less time than the start of a kernel.
_GROUP_COST = {"cpu": 4}
_GROUP_COST_ELSEWHERE = 256


def group_cost(device: torch.device) -> int:
    """How many tokens of padding take as long as one more group."""
    return _GROUP_COST.get(device.type, _GROUP_COST_ELSEWHERE)


def plan_groups(lengths: Sequence[int] | np.ndarray, *, cost: int) -> list[tuple[int, int]]:
    """The cheapest cut of texts, sorted by length, into groups of one length each.

    Formula: minimises ``sum over groups of (rows * longest + cost)``.

    Args:
        lengths: Tokens of each text, at least 1, on the host; in any order.
        cost: Of a group, in tokens.

    Returns:
        (rows, length) of each group, shortest first.

    Raises:
        ValueError: for no lengths, or one below 1.
    """
    distinct, counts = np.unique(np.asarray(lengths, dtype=np.int64), return_counts=True)
    if not len(distinct) or distinct[0] < 1:
        raise ValueError(
            f"lengths: got {list(lengths)}; expected a number of tokens of at least 1 for each text."
        )
    before = np.concatenate([[0], np.cumsum(counts)])  # texts shorter than each length, and all of them
    best = np.zeros(len(before), dtype=np.int64)  # cost of the texts up to each length
    start = np.zeros(len(before), dtype=np.int64)  # where the last of their groups begins
    for end in range(1, len(before)):
        costs = best[:end] + (before[end] - before[:end]) * distinct[end - 1]
        start[end] = costs.argmin()
        best[end] = costs[start[end]] + cost
    groups: list[tuple[int, int]] = []
    end = len(distinct)
    while end:
        begin = int(start[end])
        groups.append((int(before[end] - before[begin]), int(distinct[end - 1])))
        end = begin
    return groups[::-1]


def split_groups(x: Tensor, groups: Groups) -> list[Tensor]:
    """The groups of a matrix: (T, ...) -> views (rows, length, ...)."""
    parts = x.split([rows * length for rows, length in groups])
    return [part.unflatten(0, group) for part, group in zip(parts, groups, strict=True)]


def join_rows(x: Tensor, order: Tensor, groups: Groups) -> Tensor:
    """Rows of a padded matrix as groups: (B, L) -> (T,).

    Args:
        x: (B, L), L at least the longest group.
        order: (B,) rows, shortest first.
        groups: As planned.
    """
    rows = order.split([rows for rows, _ in groups])
    return torch.cat([x[row, :length].flatten() for row, (_, length) in zip(rows, groups, strict=True)])


def row_starts(order: Tensor, groups: Groups) -> Tensor:
    """Index of the first of the T tokens of each row of the padded matrix, (B,)."""
    starts: list[Tensor] = []
    offset = 0
    for rows, length in groups:
        starts.append(torch.arange(offset, offset + rows * length, length, device=order.device))
        offset += rows * length
    return torch.cat(starts)[order.argsort()]


def check_fit(ends: Tensor, groups: Groups) -> None:
    """Raise when a text does not fit into its group. A GPU checks asynchronously; this does not wait for it.

    Args:
        ends: (B,) position of each text's last token, shortest first.
        groups: As planned.

    Raises:
        RuntimeError: on a CPU at once, on a GPU when the check has run.
    """
    last = torch.stack([part.amax() for part in ends.split([rows for rows, _ in groups])])  # (G,)
    limit = torch.cat([last.new_full((1,), length) for _, length in groups])  # (G,)
    torch._assert_async(
        (last < limit).all(), "lengths: a text is longer than they say; give none, or the right ones."
    )
