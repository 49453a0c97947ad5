"""Endless full batches of a stream, which has no positions: what :class:`hypvl.data.loader.Loader` is for rows."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, cast

from loguru import logger
from torch.utils.data import IterableDataset, get_worker_info

from hypvl.checks import one_of
from hypvl.data.batch import Batch, collate
from hypvl.data.loader import (
    MAX_TRIES,
    BatchIterator,
    Loader,
    Share,
    StartMethod,
    bad_samples,
    batch_loader,
    check_identity,
    identity_of,
)
from hypvl.data.sample import Sample
from hypvl.data.stream import Place, Reader, StreamDataset, is_stream
from hypvl.data.tokenizer import pad_token_of
from hypvl.errors import DataError, UserError


def open_loader(dataset: Any, **settings: Any) -> "Loader | StreamLoader":
    """The loader for a data set: a :class:`StreamLoader` for a stream, else a :class:`Loader`."""
    if is_stream(dataset):
        return StreamLoader(dataset, **settings)
    return Loader(dataset, **settings)


class StreamLoader(BatchIterator):
    """An endless iterator of one rank's batches of a stream.

    Every batch is full, on every rank; a bad sample is left out, counted, and the next one takes its place. Which
    samples come depends on the numbers of ranks and workers, and a resumed run goes on with the next shards.

    Args: as for :class:`hypvl.data.loader.Loader`; ``consumed`` only counts.

    Raises:
        ConfigError: when the numbers do not fit together.
    """

    def __init__(
        self,
        dataset: StreamDataset,
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
        self.dataset = dataset
        self.batch_size = share.size  # B/(AR)
        workers = max(1, num_workers)
        self._readers = [Reader(rank * workers + i, workers * world_size) for i in range(workers)]
        self._places: list[Place] = [dataset.first_place(reader) for reader in self._readers]
        self._stream = _Batches(dataset, share, self._readers, self._places, seed)
        super().__init__(
            batch_loader(
                self._stream, num_workers=num_workers, pin_memory=pin_memory, prefetch_factor=prefetch_factor,
                start_method=start_method,
            ),
            bad=bad_samples(dataset, max_bad_fraction, rows=len(dataset)),
            alone=world_size == 1,
            identity=identity_of(seed, global_batch_size, dataset.fingerprint),
        )  # fmt: skip

    def _received(self, item: Any) -> Batch:
        batch, worker, place = item
        self._places[worker] = place
        return cast(Batch, batch)

    def _sources(self, batch: Batch) -> Mapping[str, int]:
        count = getattr(self.dataset, "count_keys", None)
        return {} if count is None else count(batch["key"])

    def places(self) -> list[Place]:
        """Where the readers of this rank go on, behind the batches that were taken from this loader."""
        return list(self._places)

    def check_resume(self, state: Mapping[str, Any]) -> None:
        """DataError for a state of another seed, global batch size or data."""
        check_identity(state, self._identity)
        if "places" not in state:
            raise DataError(
                "cannot resume: the run read its data by rows, not as a stream; restore dataset, or start a new run "
                "with train.init_checkpoint."
            )

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on behind the shards of :meth:`places`, the ``places`` of all ranks in order; before the first batch."""
        before: list[Place] = [place for rank in state["places"] for place in rank]
        same = len(before) == self._readers[0].of
        for i, reader in enumerate(self._readers):
            place = before[reader.number] if same else self.dataset.rearranged(before, reader)
            self._places[i] = place
        self._stream.places = list(self._places)
        logger.info(
            "the stream goes on with the next shards; what was read of the present ones but not used is left out{}",
            ""
            if same
            else f", and, with {self._readers[0].of} readers instead of {len(before)}, some shards come twice",
        )


class _Batches(IterableDataset[Any]):
    """Whole batches of the reader that runs in this worker: (batch, worker, place)."""

    def __init__(
        self, dataset: StreamDataset, share: Share, readers: list[Reader], places: list[Place], seed: int
    ) -> None:
        self._dataset, self._share, self._readers, self._seed = dataset, share, readers, seed
        self.places = list(places)

    def __iter__(self) -> Iterator[tuple[Batch, int, Place] | UserError]:
        info = get_worker_info()
        worker = 0 if info is None else info.id
        try:
            yield from self._read(worker)
        except UserError as error:  # raised by the loader: a worker would wrap it in its traceback
            yield error

    def _read(self, worker: int) -> Iterator[tuple[Batch, int, Place]]:
        items = self._dataset.read_stream(self._seed, self._readers[worker], self.places[worker])
        pad_token = pad_token_of(getattr(self._dataset, "tokenizer", None))
        for positions in itertools.islice(iter(self._share), worker, None, len(self._readers)):
            samples: list[Sample] = []
            bad: list[tuple[str, str]] = []
            in_a_row: list[tuple[str, str]] = []
            place = self.places[worker]
            while len(samples) < len(positions):
                item = next(items)
                place = item.place
                if item.sample is not None:
                    samples.append(item.sample)
                    in_a_row.clear()
                elif item.bad is not None:
                    bad.append(item.bad)
                    in_a_row.append(item.bad)
                if len(in_a_row) >= MAX_TRIES:
                    key, reason = in_a_row[0]
                    raise DataError(
                        f"{MAX_TRIES} samples in a row could not be read (the first: {key}: {reason}); expected most "
                        "to be readable: check that the data is what dataset.mapper expects."
                    )
            rows = [-1] * len(samples)  # there are none
            yield (
                collate(samples, positions=positions, rows=rows, bad=bad, pad_token=pad_token),
                worker,
                place,
            )
