"""The order of samples: a pure function from position to row, computed lazily.

Positions count 0, 1, 2, ... through endless epochs. In each epoch the shards are permuted and laid end to end,
starting at a random place; then samples are permuted inside windows of ``shuffle_window``. All of it is keyed
by (seed, epoch, window): any position can be asked at any time, by any process, at O(window) cost.
"""

import bisect
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from hypvl.checks import whole_number

# One stream of random numbers per purpose.
SHARDS, WINDOW, SAMPLE, REPLACEMENT, MIX, STREAM, SUBSET = range(7)
_KEPT_WINDOWS = 8


def keyed_bits(purpose: int, seed: int, a: int, b: int) -> np.random.PCG64:
    """Random bits keyed by the arguments, each cut into 32-bit words so that no two keys coincide."""
    words = [part for value in (seed, a, b) for part in (value & 0xFFFFFFFF, value >> 32)]
    return np.random.PCG64(np.random.SeedSequence([purpose, *words]))


def permutation(bits: np.random.PCG64, n: int) -> np.ndarray:
    """Of 0 to n - 1, drawn from ``bits``; the same with every version of NumPy."""
    # argsort of raw bits: NumPy promises that these never change, which it does not for Generator.permutation,
    # and a run may be resumed after an upgrade.
    return np.argsort(bits.random_raw(n), kind="stable")


class Order(Protocol):
    """Which row each position of the endless sequence is; every method is a pure function of its arguments."""

    rows: int

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, row) of a position >= 0."""
        ...

    def replacement(self, position: int, attempt: int) -> int:
        """The row that stands in for a bad one at this position, for attempts 1, 2, ..."""
        ...

    def generator(self, position: int, attempt: int = 0) -> np.random.Generator:
        """The random numbers of the sample at a position; no rank, worker or batch size comes in."""
        ...


def order_of(dataset: Any, *, seed: int) -> Order:
    """The order in which a data set is read: its own, ``order(seed)``, or that of its shards."""
    if hasattr(dataset, "order"):
        order: Order = dataset.order(seed)
        return order
    sizes, window = _settings(dataset)
    return PositionSampler(sizes, seed=seed, shuffle_window=window)


def order_key(dataset: Any) -> str:
    """What a resumed run must have kept of a data set: its rows, what is made of them, and their order."""
    if hasattr(dataset, "order"):
        return str(dataset.order_key)
    sizes, window = _settings(dataset)
    return f"{dataset.fingerprint} {sizes} {window}"


def _settings(dataset: Any) -> tuple[Sequence[int], int]:
    sizes = dataset.shard_sizes() if hasattr(dataset, "shard_sizes") else [len(dataset)]
    return sizes, getattr(dataset, "shuffle_window", 4000)


class PositionSampler:
    """Turns positions into rows; the rows of a shard are those after all rows of the shards before it.

    ``shuffle_window`` samples are permuted together (1: only the shards are).
    """

    def __init__(self, shard_sizes: Sequence[int], *, seed: int, shuffle_window: int = 4000) -> None:
        self.seed = whole_number("seed", seed, least=0)
        self.shuffle_window = whole_number("shuffle_window", shuffle_window, least=1)
        self._sizes = np.asarray(shard_sizes, dtype=np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.rows = int(self._sizes.sum())
        if self.rows < 1 or int(self._sizes.min()) < 0:
            raise ValueError(
                f"shard_sizes: got {self.rows} rows in {len(self._sizes)} shards; expected some."
            )
        self._epochs: OrderedDict[int, tuple[np.ndarray, list[int], int]] = OrderedDict()
        self._windows: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, row) of a position >= 0. Every row comes once in an epoch."""
        epoch, place = divmod(position, self.rows)
        window, offset = divmod(place, self.shuffle_window)
        first = window * self.shuffle_window
        shards, ends, turn = self._epoch(epoch)
        at = (first + int(self._window(epoch, window)[offset]) + turn) % self.rows
        slot = bisect.bisect_right(ends, at)
        shard = int(shards[slot])
        return epoch, int(self._starts[shard]) + at - (ends[slot] - int(self._sizes[shard]))

    def replacement(self, position: int, attempt: int) -> int:
        """The row that stands in for a bad one at this position, for attempts 1, 2, ..."""
        return int(keyed_bits(REPLACEMENT, self.seed, position, attempt).random_raw()) % self.rows

    def generator(self, position: int, attempt: int = 0) -> np.random.Generator:
        """The random numbers of the sample at a position; no rank, worker or batch size comes in."""
        return np.random.Generator(keyed_bits(SAMPLE, self.seed, position, attempt))

    def _epoch(self, epoch: int) -> tuple[np.ndarray, list[int], int]:
        """(shards in their order, where each ends, where the sequence starts: moves the windows' borders)."""
        if epoch not in self._epochs:
            bits = keyed_bits(SHARDS, self.seed, epoch, 0)
            turn = int(bits.random_raw()) % self.rows
            shards = permutation(bits, len(self._sizes))
            self._epochs[epoch] = (shards, np.cumsum(self._sizes[shards]).tolist(), turn)
            if len(self._epochs) > 2:
                self._epochs.popitem(last=False)
        return self._epochs[epoch]

    def _window(self, epoch: int, window: int) -> np.ndarray:
        key = (epoch, window)
        if key not in self._windows:
            size = min(self.shuffle_window, self.rows - window * self.shuffle_window)
            self._windows[key] = permutation(keyed_bits(WINDOW, self.seed, epoch, window), size)
            if len(self._windows) > _KEPT_WINDOWS:
                self._windows.popitem(last=False)
        return self._windows[key]
