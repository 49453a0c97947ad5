"""A queue of features of earlier batches, equal on every rank."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.checks import MOST_FEATURES, one_of, whole_number
from hypvl.geometry.sphere import normalize
from hypvl.losses.base import Changed

Start: TypeAlias = Literal["unit", "uniform"]


class FeatureQueue(nn.Module):
    """The last K rows that were put in; the oldest are overwritten.

    Args:
        size: K.
        dim: D.
        start: What is there before: ``"unit"`` rows of random directions, or ``"uniform"`` entries in (-a, a) with
            a = sqrt(3 / D), rows of length 1 on average. Drawn from a generator of its own, so that it is the same on
            every rank and in every run.

    Buffers: ``rows`` (K, D), and ``pointer``, 0-dim int64: where the next row goes. Both are in checkpoints.
    """

    rows: Tensor
    pointer: Tensor

    def __init__(self, size: int, dim: int, *, start: Start = "unit") -> None:
        one_of("start", start, Start)
        super().__init__()
        whole_number("queue_size", size, least=1, most=2**31 - 1)
        whole_number("dim", dim, least=1, most=MOST_FEATURES)
        generator = torch.Generator().manual_seed(0)
        if start == "unit":
            rows = normalize(torch.randn(size, dim, generator=generator))
        else:
            bound = (3 / dim) ** 0.5
            rows = (2 * torch.rand(size, dim, generator=generator) - 1) * bound
        self.register_buffer("rows", rows)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue_(self, rows: Tensor, *, gathered: bool = True) -> None:
        """Put the rows of this rank, (B, D), behind the last ones, and with ``gathered`` those of every rank in order.

        Nothing waits for the device. Of more than K rows the last K count.
        """
        rows = rows.detach()
        if gathered:
            rows = distributed.gather(rows)
        kept = rows[-len(self.rows) :]
        self.rows.index_copy_(0, self._places(len(rows)), kept.to(self.rows.dtype))
        self.pointer.copy_((self.pointer + len(rows)) % len(self.rows))

    def changes(self, counts: Sequence[int], *, gathered: bool = True) -> list[Changed]:
        """What :meth:`enqueue_` of so many rows of this rank, one after the other, will change."""
        count = sum(counts) * (distributed.world_size() if gathered else 1)
        return [Changed(self, "pointer"), Changed(self, "rows", self._places(count))]

    def _places(self, count: int) -> Tensor:
        """Where the last of ``count`` further rows go, at most K."""
        size = len(self.rows)
        kept = min(count, size)
        first = self.pointer + (count - kept)
        return (first + torch.arange(kept, device=self.rows.device)) % size
