"""Several sources read together in given shares: which source a position reads is computed, not remembered.

Positions are laid out in blocks, the smallest in which every share is a whole number of positions (10 for 0.7 and
0.3). Each block holds exactly that many positions of each source, in an order keyed by (seed, block); so the k-th
position of a source is known without any history, and the source reads it as position k of its own order.
"""

import bisect
import dataclasses
import functools
import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from loguru import logger

from hypvl.allowlist import configurable
from hypvl.checks import number
from hypvl.data.order import MIX, SAMPLE, Order, keyed_bits, order_key, order_of, permutation
from hypvl.data.sample import BadSample, PairDataset, Sample, check_dataset, prepare_dataset
from hypvl.data.tokenizer import pad_token_of
from hypvl.errors import ConfigError

#: Positions of the largest block; shares that fit no smaller one are rounded to multiples of one part in so many.
LARGEST_BLOCK = 10_000
_KEPT_BLOCKS = 64


class MixPattern:
    """Which source each position belongs to.

    Args:
        weights: Name of each source -> its weight, above 0; only their ratios count.

    Raises:
        ValueError: for no weight, one that is no number above 0, or one below half a part of ``LARGEST_BLOCK``.

    Example:
        >>> pattern = MixPattern({"redcaps": 0.7, "cc12m": 0.3})
        >>> pattern.names, pattern.counts.tolist()
        (('redcaps', 'cc12m'), [7, 3])
        >>> sum(pattern.at(0, position)[0] for position in range(1000))
        300
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        if not weights:
            raise ValueError(
                "mix: got no weights; expected one for each source, e.g. {redcaps: 0.7, cc12m: 0.3}."
            )
        exact = {
            str(name): Fraction(str(number(f"mix.{name}", weight, above=0)))
            for name, weight in weights.items()
        }
        total = sum(exact.values())
        shares = [weight / total for weight in exact.values()]
        self.names = tuple(exact)
        self.block = min(math.lcm(*(share.denominator for share in shares)), LARGEST_BLOCK)
        self.counts = _whole(shares, self.block)  # (S,) positions of each source in a block
        for name, count, share in zip(self.names, self.counts, shares, strict=True):
            if count == 0:
                raise ValueError(
                    f"mix.{name}: got {weights[name]}, a share of {float(share):.1e}; expected at least "
                    f"{1 / LARGEST_BLOCK}: give it more, or leave the source out."
                )
        self._blocks: OrderedDict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = OrderedDict()

    @property
    def shares(self) -> dict[str, float]:
        """The exact share of each source."""
        return {name: int(n) / self.block for name, n in zip(self.names, self.counts, strict=True)}

    def at(self, seed: int, position: int) -> tuple[int, int]:
        """(source of a position >= 0, how many positions before it have the same source)."""
        block, offset = divmod(position, self.block)
        sources, before = self._block(seed, block)
        source = int(sources[offset])
        return source, block * int(self.counts[source]) + int(before[offset])

    def _block(self, seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        key = (seed, block)
        if key not in self._blocks:
            ordered = np.repeat(np.arange(len(self.counts)), self.counts)
            sources = ordered[permutation(keyed_bits(MIX, seed, block, 0), self.block)]
            before = np.empty(self.block, dtype=np.int64)
            for source, count in enumerate(self.counts):
                before[sources == source] = np.arange(count)
            self._blocks[key] = (sources, before)
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        return self._blocks[key]


def _whole(shares: Sequence[Fraction], block: int) -> np.ndarray:
    """Whole numbers that sum to ``block``, each as near to its share as that allows (largest remainders)."""
    exact = [share * block for share in shares]
    counts = np.array([math.floor(value) for value in exact], dtype=np.int64)
    by_rest = sorted(range(len(exact)), key=lambda i: (int(counts[i]) - exact[i], i))
    counts[by_rest[: block - int(counts.sum())]] += 1
    return counts


class MixedOrder:
    """The order of a mixture: rows of the sources one after the other, each source in an order of its own."""

    def __init__(self, pattern: MixPattern, orders: Sequence[Order], *, seed: int) -> None:
        self.seed = seed
        self._pattern, self._orders = pattern, orders
        sizes = [order.rows for order in orders]
        self._first = [sum(sizes[:i]) for i in range(len(sizes))]
        self.rows = sum(sizes)

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch of its source, row) of a position >= 0."""
        source, place = self._pattern.at(self.seed, position)
        epoch, row = self._orders[source].locate(place)
        return epoch, self._first[source] + row

    def replacement(self, position: int, attempt: int) -> int:
        """The row of the same source that stands in for a bad one, for attempts 1, 2, ..."""
        source, place = self._pattern.at(self.seed, position)
        return self._first[source] + self._orders[source].replacement(place, attempt)

    def generator(self, position: int, attempt: int = 0) -> np.random.Generator:
        """The random numbers of the sample at a position, keyed as those of every other order."""
        return np.random.Generator(keyed_bits(SAMPLE, self.seed, position, attempt))


def source_seed(seed: int, name: str) -> int:
    """The seed of a source's own order: another source beside it changes nothing."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]) >> 1


def check_mix(sources: Mapping[str, Any], mix: Mapping[str, float]) -> MixPattern:
    """The pattern of a mixture whose weights name its sources, all of them and no other. Raises ValueError."""
    if set(sources) != set(mix):
        raise ValueError(
            f"mix: got weights for {', '.join(mix) or 'nothing'}, but the sources are {', '.join(sources) or 'none'}; "
            "give one weight for each source."
        )
    return MixPattern({name: mix[name] for name in sources})


@configurable("dataset")
@dataclasses.dataclass(eq=False, repr=False)
class MixedSources:
    """Several training sets read together, each with a given share of the samples.

    A sample is a pure function of (seed, position), as for one set, and a bad sample is replaced by one of its own
    source, so the shares are exact in each block of positions, and a resumed run continues with the next sample. Every
    source runs through epochs of its own: with a small share of the samples a large source takes longer.

    Args:
        sources: Name -> training set, in the order of their rows.
        mix: Name -> weight above 0; only the ratios count. Shares that need blocks of more than 10,000 positions are
            rounded to multiples of 0.0001.
        max_bad_fraction: Share of bad samples, of all sources together, at which training stops; those of the sources
            have no effect.

    Raises:
        ValueError: when the weights do not name the sources, or are no numbers above 0.
        DataError: when a source is no training set (a stream has no rows: ``MixedStreams``).

    Example:
        >>> MixedSources(sources={}, mix={"redcaps": 1})
        Traceback (most recent call last):
        ...
        ValueError: mix: got weights for redcaps, but the sources are none; give one weight for each source.
    """

    sources: Mapping[str, PairDataset]
    mix: Mapping[str, float]
    _: dataclasses.KW_ONLY
    max_bad_fraction: float = 0.1

    def __post_init__(self) -> None:
        number("max_bad_fraction", self.max_bad_fraction, least=0, most=1)
        self._pattern = check_mix(self.sources, self.mix)
        for name, source in self.sources.items():
            if hasattr(source, "read_stream"):
                raise ConfigError(
                    f"dataset.sources.{name}: is a stream, which has no rows to mix exactly; mix streams with "
                    "MixedStreams, and indexed sources with MixedSources."
                )
            check_dataset(source)

    def prepare(self) -> None:
        """Prepare every source, and log the shares. Raises DataError."""
        for source in self.sources.values():
            prepare_dataset(source)
        shares = self._pattern.shares
        logger.info(
            "mix: {}; exact in every {} samples",
            ", ".join(f"{name} {shares[name]:.2%} of {len(source)}" for name, source in self.sources.items()),
            self._pattern.block,
        )

    def __len__(self) -> int:
        """Rows of all sources."""
        return self._ends[-1]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the names and fingerprints of the sources (not of the mix: rows keep their numbers when it changes)."""
        parts = [f"{name} {source.fingerprint}" for name, source in self.sources.items()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def order(self, seed: int) -> MixedOrder:
        """Which row each position is."""
        orders = [order_of(source, seed=source_seed(seed, name)) for name, source in self.sources.items()]
        return MixedOrder(self._pattern, orders, seed=seed)

    @property
    def order_key(self) -> str:
        """Changes when the shares do, or a source or its order."""
        parts = [order_key(source) for source in self.sources.values()]
        return f"{self.fingerprint} {self._pattern.names} {self._pattern.counts.tolist()} {parts}"

    @property
    def tokenizer(self) -> Any:
        """That of the first source; all of them fill rows with the same token."""
        tokenizers = {name: getattr(source, "tokenizer", None) for name, source in self.sources.items()}
        first, *others = tokenizers
        for other in others:
            pads = [pad_token_of(tokenizers[name]) for name in (first, other)]
            if pads[0] != pads[1]:
                raise ConfigError(
                    f"dataset.sources.{other}.tokenizer: fills rows with {pads[1]}, that of {first} with {pads[0]}; "
                    "give all sources the same tokenizer."
                )
        return tokenizers[first]

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        """The sample of a row, in [0, len); its key begins with the name of its source. Raises BadSample."""
        i = bisect.bisect_right(self._ends, row)
        name, source = self._named[i]
        try:
            sample = source.sample(row - (self._ends[i - 1] if i else 0), generator)
        except BadSample as error:
            raise BadSample(f"{name}:{error.key}", error.reason) from error
        return {**sample, "key": f"{name}:{sample['key']}"}

    def count_sources(self, rows: np.ndarray) -> dict[str, int]:
        """How many of the rows (B,) are of each source."""
        places = np.searchsorted(self._ends, rows, side="right")
        counts = np.bincount(places, minlength=len(self._ends)).tolist()
        return dict(zip(self.sources, counts, strict=True))

    @functools.cached_property
    def _named(self) -> list[tuple[str, PairDataset]]:
        return list(self.sources.items())

    @functools.cached_property
    def _ends(self) -> list[int]:
        ends: list[int] = np.cumsum([len(source) for source in self.sources.values()]).tolist()
        return ends

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_ends", "_named")}

    def __repr__(self) -> str:
        return f"MixedSources({self._pattern.shares})"
