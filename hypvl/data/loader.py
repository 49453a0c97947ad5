"""Endless batches, the same for any number of ranks and workers, from any position on.

Global batch g holds positions [gB, (g + 1)B). With A micro-batches and R ranks, micro-batch a of rank r holds
the B/(AR) positions from gB + aB/A + rB/(AR) on.
"""

import hashlib
import itertools
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self, TypeAlias, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hypvl.checks import one_of
from hypvl.data.bad_samples import BadSamples
from hypvl.data.batch import Batch, collate
from hypvl.data.order import Order, order_key, order_of
from hypvl.data.sample import BadSample, PairDataset, Sample
from hypvl.data.tokenizer import pad_token_of
from hypvl.data.workers import WorkerIterator
from hypvl.errors import ConfigError, DataError, UserError

StartMethod: TypeAlias = Literal["fork", "spawn", "forkserver"]

#: Samples in a row that may be bad.
MAX_TRIES = 100
#: Good samples before a share of bad ones means anything.
WARM_UP = 1000


class Share(Sampler[range]):
    """The positions of one rank, a micro-batch at a time, without end; arguments as for :class:`Loader`."""

    def __init__(
        self, global_batch_size: int, *, rank: int, world_size: int, accumulate: int = 1, consumed: int = 0
    ) -> None:
        if global_batch_size < 1 or accumulate < 1 or global_batch_size % (world_size * accumulate):
            raise ConfigError(
                f"global batch size (train.total_batch_size): got {global_batch_size} for {world_size} processes "
                f"x {accumulate} micro-batches; expected a multiple of {world_size * accumulate}."
            )
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank: got {rank}; expected 0 to {world_size - 1}.")
        if consumed < 0 or consumed % global_batch_size:
            raise ConfigError(
                f"consumed: got {consumed} samples; expected a multiple of the global batch size "
                f"{global_batch_size} (it counts samples of all ranks, not steps)."
            )
        self.size = global_batch_size // (world_size * accumulate)
        self._starts = (consumed + rank * self.size, global_batch_size // accumulate)

    def __iter__(self) -> Iterator[range]:
        for start in itertools.count(*self._starts):
            yield range(start, start + self.size)


class BatchIterator(Iterator[Batch]):
    """An endless iterator of batches that workers read: it counts what was taken, and ends the workers.

    Args:
        loader: Gives batches, or what :meth:`_received` takes them out of; a UserError is raised here.
        bad: Counts the bad samples among the batches taken.
        identity: Of :func:`identity_of`.
        alone: Whether this is the only rank: else the share of bad samples is that of all of them, which who trains
            checks (:meth:`BadSamples.merged`).
    """

    def __init__(
        self, loader: DataLoader[Any], *, bad: BadSamples, identity: Mapping[str, Any], alone: bool
    ) -> None:
        self._loader = loader
        self.bad = bad
        self._alone = alone
        self.taken: Counter[str] = Counter()  # samples of each source of a mixture, by name
        self._identity = identity
        self._batches: Iterator[Any] | None = None

    def _received(self, item: Any) -> Batch:
        """The batch in what a worker gave."""
        return cast(Batch, item)

    @abstractmethod
    def _sources(self, batch: Batch) -> Mapping[str, int]:
        """How many samples are of each source of a mixture; empty where there is none."""

    def __next__(self) -> Batch:
        """The next batch. Raises DataError when too many samples are bad (in one process), or a worker has died."""
        if self._batches is None:
            self._batches = WorkerIterator(
                self._loader, setting=f"train.num_workers={self._loader.num_workers}"
            )
        item = next(self._batches)
        if isinstance(item, UserError):
            raise item
        batch = self._received(item)
        self.bad.add(len(batch["key"]), batch["bad"])
        if self._alone:
            self.bad.check()
        self.taken.update(self._sources(batch))
        return batch

    def state(self, consumed: int) -> dict[str, Any]:
        """Where training stands after ``consumed`` samples of all ranks, for the checkpoint (read ahead or not)."""
        return {"consumed": consumed, **self._identity}

    def describe(self) -> str:
        """What the workers are doing, in words."""
        return self._batches.describe() if isinstance(self._batches, WorkerIterator) else ""

    def close(self) -> None:
        """End the workers; there is no next batch. One that does not end within seconds is killed."""
        if isinstance(self._batches, WorkerIterator):
            self._batches.close()
        self._batches = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Loader(BatchIterator):
    """An endless iterator of one rank's share of the global batches.

    Args:
        dataset: Samples by row.
        global_batch_size: B, samples of all ranks and micro-batches together.
        rank: Of this process, in [0, world_size).
        world_size: R.
        num_workers: Processes that read ahead; 0 reads in this one.
        seed: Of order, crops and captions.
        consumed: Samples of all ranks that training has used before: where to go on.
        accumulate: A, micro-batches of a global batch; the loader gives them one after the other.
        pin_memory: Put batches in page-locked memory, for copies to a GPU.
        prefetch_factor: Batches each worker reads ahead.
        max_bad_fraction: Share of bad samples that is an error; None: the dataset's own, or 0.1.
        start_method: How workers start; None: the system's default.

    Raises:
        ConfigError: when the numbers do not fit together.
    """

    def __init__(
        self,
        dataset: PairDataset,
        *,
        global_batch_size: int,
        rank: int,
        world_size: int,
        num_workers: int,
        seed: int,
        consumed: int = 0,
        accumulate: int = 1,
        pin_memory: bool = False,
        prefetch_factor: int = 2,
        max_bad_fraction: float | None = None,
        start_method: StartMethod | None = None,
    ) -> None:
        one_of("start_method", start_method, StartMethod | None)
        share = Share(
            global_batch_size, rank=rank, world_size=world_size, accumulate=accumulate, consumed=consumed
        )
        if hasattr(dataset, "read_stream"):
            raise ConfigError(
                "dataset: is a stream, which has no rows to read by position; name indexed shards (ImageTextShards)."
            )
        self.dataset = dataset
        self.batch_size = share.size  # B/(AR)
        order = order_of(dataset, seed=seed)
        super().__init__(
            batch_loader(
                _Batches(dataset, order), sampler=share, num_workers=num_workers, pin_memory=pin_memory,
                prefetch_factor=prefetch_factor, start_method=start_method,
            ),
            bad=bad_samples(dataset, max_bad_fraction, rows=order.rows),
            alone=world_size == 1,
            identity=identity_of(seed, global_batch_size, order_key(dataset)),
        )  # fmt: skip

    def _sources(self, batch: Batch) -> Mapping[str, int]:
        count = getattr(self.dataset, "count_sources", None)
        return {} if count is None else count(batch["index"].numpy())

    def check_resume(self, state: Mapping[str, Any]) -> None:
        """DataError for a state of another seed, global batch size or data: its positions meant other samples."""
        check_identity(state, self._identity)


def identity_of(seed: int, global_batch_size: int, data: str) -> dict[str, Any]:
    """What a resumed run must have kept: ``data`` describes the rows and their order."""
    fingerprint = hashlib.sha256(data.encode()).hexdigest()
    return {"seed": seed, "global_batch_size": global_batch_size, "fingerprint": fingerprint}


def check_identity(state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """DataError where a state differs from :func:`identity_of` this run."""
    meaning = {
        "seed": "train.seed",
        "global_batch_size": "train.total_batch_size",
        "fingerprint": "the data (shards, transforms, shuffle_window, mix), as a fingerprint,",
    }
    for name, words in meaning.items():
        if state.get(name) != identity[name]:
            raise DataError(
                f"cannot resume: {words} was {state.get(name)} and is {identity[name]} now; restore "
                "it, or start a new run with train.init_checkpoint."
            )


class _Batches(Dataset[Any]):
    """Whole batches by their positions; this is what runs in the workers."""

    def __init__(self, dataset: PairDataset, order: Order) -> None:
        self._dataset = dataset
        self._order = order

    def __getitem__(self, positions: range) -> Batch | UserError:
        samples: list[Sample] = []
        rows: list[int] = []
        bad: list[tuple[str, str]] = []
        try:
            for position in positions:
                row, sample = self._read(position, bad)
                rows.append(row)
                samples.append(sample)
        except UserError as error:  # raised by the loader: a worker would wrap it in its traceback
            return error
        pad_token = pad_token_of(getattr(self._dataset, "tokenizer", None))
        return collate(samples, positions=positions, rows=rows, bad=bad, pad_token=pad_token)

    def _read(self, position: int, bad: list[tuple[str, str]]) -> tuple[int, Sample]:
        _, row = self._order.locate(position)
        reasons: list[tuple[str, str]] = []
        for attempt in range(1, MAX_TRIES + 1):
            try:
                sample = self._dataset.sample(row, self._order.generator(position, attempt - 1))
            except BadSample as error:
                reasons.append((error.key, error.reason))
                row = self._order.replacement(position, attempt)
            else:
                bad.extend(reasons)
                return row, sample
        key, reason = reasons[0]
        raise DataError(
            f"{MAX_TRIES} samples in a row could not be read (the first: {key}: {reason}); expected most to be "
            "readable: check that the data is what dataset.mapper expects."
        )


def bad_samples(dataset: Any, max_fraction: float | None, *, rows: int) -> BadSamples:
    """Counts the bad samples of data with ``rows`` rows; None: the share that the dataset allows, or 0.1."""
    if max_fraction is None:
        max_fraction = getattr(dataset, "max_bad_fraction", 0.1)
    return BadSamples(max_fraction=max_fraction, warm_up=min(WARM_UP, rows))


def batch_loader(
    batches: Dataset[Any],
    *,
    sampler: Sampler[Any] | None = None,
    num_workers: int,
    pin_memory: bool,
    prefetch_factor: int,
    start_method: StartMethod | None,
) -> DataLoader[Any]:
    """Torch's loader of a dataset whose items are whole batches. Raises ValueError for another start method."""
    one_of("start_method", start_method, StartMethod | None)
    return DataLoader(
        batches,
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        prefetch_factor=prefetch_factor if num_workers else None,
        multiprocessing_context=start_method if num_workers else None,
        # Workers' own generators are seeded from it; none of them is used.
        generator=torch.Generator().manual_seed(0),
    )


def _as_it_is(batch: Any) -> Any:
    return batch
