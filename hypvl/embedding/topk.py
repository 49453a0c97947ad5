"""The best keys of queries, kept while scores come in blocks and are forgotten."""

import torch
from torch import Tensor

from hypvl.errors import UserError
from hypvl.metrics.ranking import rank_keys


class BestKeys:
    """The k best keys of each of Q queries, of the blocks of scores seen so far.

    Of equal scores the lower key stays first, if blocks come with ascending keys. After the first few blocks hardly any
    score is better than what is kept: a block then costs one look for the best of each row and one comparison.

    Args:
        k: How many to keep.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.values: Tensor | None = None  # (Q, <= k), best first
        self.keys: Tensor | None = None  # (Q, <= k) int64

    def add(self, block: Tensor, at: int) -> None:
        """Look at the scores of the next keys.

        Args:
            block: (Q, n); a transposed one is fine.
            at: Position of the first of these keys.

        Raises:
            UserError: when scores are NaN.
        """
        top = block.amax(dim=1)  # NaN where any is
        if bool(top.isnan().any()):
            check_scores(block)
        if self.values is None or self.keys is None:
            order = rank_keys(block, self.k)
            self.values, self.keys = block.gather(1, order), order + at
        elif self.values.shape[1] < self.k:
            order = rank_keys(block, self.k)
            self._merge(slice(None), block.gather(1, order), order + at)
        else:
            worst = self.values[:, -1]
            rows = (top > worst).nonzero()[:, 0]
            if len(rows):
                self._merge(rows, *_above(block, rows, worst[rows], at))

    def on_cpu(self) -> tuple[Tensor, Tensor]:
        """Scores (Q, k) and keys (Q, k) int64, best first."""
        assert self.values is not None and self.keys is not None
        return self.values.cpu(), self.keys.cpu()

    def _merge(self, rows: Tensor | slice, values: Tensor, keys: Tensor) -> None:
        """New candidates of some rows, in the order of their keys where they are equal, behind the kept ones."""
        assert self.values is not None and self.keys is not None
        # A stable sort: what is kept stands first and has lower keys, so that the order of ties stays right.
        values = torch.cat([self.values[rows], values], dim=1)
        keys = torch.cat([self.keys[rows], keys], dim=1)
        values, order = values.sort(dim=1, descending=True, stable=True)
        values, keys = values[:, : self.k], keys.gather(1, order[:, : self.k])
        if isinstance(rows, slice):
            self.values, self.keys = values.contiguous(), keys
        else:
            self.values[rows], self.keys[rows] = values, keys


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


def _above(block: Tensor, rows: Tensor, worst: Tensor, at: int) -> tuple[Tensor, Tensor]:
    """What of some rows of a block is above a bound each: values and keys (q, m), filled up with minus infinity."""
    chosen = block if len(rows) == len(block) else block[rows]
    row, column = (chosen > worst[:, None]).nonzero(as_tuple=True)  # ascending by row, then by column
    counts = row.bincount(minlength=len(rows))
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    shape = (len(rows), int(counts.max()))
    values = block.new_full(shape, -torch.inf)
    keys = torch.zeros(shape, dtype=torch.int64, device=block.device)
    values[row, place] = chosen[row, column]
    keys[row, place] = column + at
    return values, keys
