"""Image-text pairs read as a stream, for object stores and commands that cannot be read at any place.

Shards stand in an endless sequence, permuted anew in each epoch, and reader r of n (one for each process and data
worker) reads shards r, r + n, r + 2n, ... of it. So every reader always has a next shard, however few there are. Its
samples go through a shuffle buffer. Where a reader stands is the number of its next shard: that is all that is saved.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeGuard

import numpy as np
from loguru import logger

from hypvl.allowlist import configurable
from hypvl.checks import number, whole_number
from hypvl.data.augment import InModalAugment
from hypvl.data.mappers import Mapper
from hypvl.data.mix import MixPattern, check_mix, source_seed
from hypvl.data.order import STREAM, keyed_bits, permutation
from hypvl.data.sample import BadSample, ImageTransform, PairReader, Sample, Tokenize
from hypvl.data.shards import expand_shards
from hypvl.data.storage import FileHandles, Source, open_source
from hypvl.data.stream_tar import stream_samples
from hypvl.errors import ConfigError, DataError
from hypvl.io.images import MAX_PIXELS
from hypvl.io.redact import printable, redact_text

#: Where a reader goes on: the number of its next shard, or that of each source of a mixture by name.
Place: TypeAlias = int | dict[str, int]
_READ_AT_ONCE = 4 << 20  # bytes
_INITIAL = 256  # samples in a shuffle buffer before it gives the first
_BUFFER = 1 << 40  # keys the random numbers of shuffle buffers, apart from those of samples
_ATTEMPTS = 4  # to read a shard whose command fails
_BACKOFF = 1.0  # seconds before the second of them, doubled after each


class Reader(NamedTuple):
    """One of the readers of a stream: a data worker of a process."""

    number: int  # from 0
    of: int


class StreamItem(NamedTuple):
    """A sample, or the (key, reason) of a bad one, and where the reader would go on behind it."""

    sample: Sample | None
    bad: tuple[str, str] | None
    place: Place


class StreamDataset(Protocol):
    """What :class:`hypvl.data.stream_loader.StreamLoader` asks of a data set without rows."""

    def __len__(self) -> int:
        """Samples that count as an epoch."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the shards, or what is made of them, do."""
        ...

    def first_place(self, reader: Reader) -> Place:
        """Where a reader begins."""
        ...

    def rearranged(self, places: Sequence[Place], reader: Reader) -> Place:
        """Where a reader begins after a run of another number of readers, which stood at ``places``."""
        ...

    def read_stream(self, seed: int, reader: Reader, place: Place) -> Iterator[StreamItem]:
        """The items of a reader from a place on, without end."""
        ...


def is_stream(dataset: Any) -> TypeGuard[StreamDataset]:
    """Whether a data set is read as a stream; else it has rows."""
    return hasattr(dataset, "read_stream")


@configurable("dataset")
@dataclasses.dataclass(eq=False, repr=False)
class WebDatasetStream(PairReader):
    """Samples of TAR shards that are read from their beginning to their end, shuffled by the package webdataset.

    A run resumes at the granularity of shards: each reader goes on with its next shard, so what was in its shuffle
    buffer and the rest of the shard that it was reading are left out. The order depends on the number of processes and
    data workers. Where shards can be read at any place (local files, http with range requests), ImageTextShards
    resumes to the sample.

    Args:
        tarfiles: As for ImageTextShards: paths, globs, brace lists, URLs, ``pipe:`` commands, which run each time.
        mapper: Makes image and caption from a sample's members.
        samples_per_epoch: Samples that count as an epoch, about as many as there are; nothing else depends on it.
        shuffle_window: Samples in the shuffle buffer of each reader; 1 = only shards are shuffled.
        cache_dir: Where URLs that cannot be read in parts are downloaded.
        allow_pipe: Allow ``pipe:``, which runs commands: in a Python config or on the command line only.
        allow_http: Allow plain http, which anybody on the way can change; as ``allow_pipe``.

    The others: :class:`hypvl.data.sample.PairReader`.
    """

    tarfiles: str | Sequence[str]
    mapper: Mapper
    image_transform: ImageTransform
    tokenizer: Tokenize | None = None
    _: dataclasses.KW_ONLY
    samples_per_epoch: int
    shuffle_window: int = 4000
    max_bad_fraction: float = 0.1
    cache_dir: str | Path | None = None
    allow_pipe: bool = False
    allow_http: bool = False
    max_pixels: int = MAX_PIXELS
    augment: InModalAugment | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("samples_per_epoch", self.samples_per_epoch, least=1)
        self._cache_dir = None if self.cache_dir is None else Path(self.cache_dir).expanduser()

    def prepare(self) -> None:
        """Find the shards, and say what a stream is. Raises DataError for one missing or not allowed."""
        logger.info(
            "{} shards, read as a stream: a resumed run goes on with the next shards and leaves out the rest of the "
            "present ones",
            len(self._shards),
        )  # fmt: skip

    def __len__(self) -> int:
        return self.samples_per_epoch

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the names of the shards, and of what is made of them."""
        described = self.describe(self.mapper, self.image_transform, self.max_pixels)
        return hashlib.sha256(f"{self._shards} {described}".encode()).hexdigest()

    def first_place(self, reader: Reader) -> Place:
        """Its number."""
        return reader.number

    def rearranged(self, places: Sequence[Place], reader: Reader) -> Place:
        """Behind the earliest place."""
        return min(_numbers(places)) + reader.number

    def read_stream(self, seed: int, reader: Reader, place: Place) -> Iterator[StreamItem]:
        """Its samples in shuffled order; a bad one is given at once.

        Raises:
            DataError: when a shard cannot be read, after some attempts.
        """
        from webdataset.filters import shuffle

        (first,) = _numbers([place])
        rng = random.Random(int(keyed_bits(STREAM, seed, first, _BUFFER).random_raw()))
        raw = self._raw(seed, itertools.count(first, reader.of), reader.of)
        stage = shuffle(self.shuffle_window, initial=min(self.shuffle_window, _INITIAL), rng=rng)
        latest = first
        for entry in raw if self.shuffle_window == 1 else stage(raw):
            latest = max(latest, entry.next_shard)
            yield self._item(seed, entry, latest)

    def _item(self, seed: int, entry: "_Raw", place: int) -> StreamItem:
        if isinstance(entry.members, str):
            return StreamItem(None, (entry.key, entry.members), place)
        generator = np.random.Generator(keyed_bits(STREAM, seed, entry.shard, entry.number + 1))
        image_seed = int(generator.integers(2**63))
        try:
            fields = self.mapper(entry.key, entry.members, generator)
            return StreamItem(self.finish(entry.key, fields, image_seed=image_seed), None, place)
        except BadSample as error:
            return StreamItem(None, (error.key, error.reason), place)

    def _raw(self, seed: int, shards: Iterator[int], step: int) -> Iterator["_Raw"]:
        places = self._shards
        orders: dict[int, np.ndarray] = {}
        empty = 0  # shards in a row
        for shard in shards:
            epoch, offset = divmod(shard, len(places))
            if epoch not in orders:
                orders = {epoch: permutation(keyed_bits(STREAM, seed, epoch, 0), len(places))}
            place = places[int(orders[epoch][offset])]
            empty += 1
            for i, (key, members) in enumerate(self._shard(place)):
                empty = 0
                yield _Raw(shard, i, key, members, shard + step)
            if empty >= len(places):
                raise DataError(
                    f"{redact_text(str(self.tarfiles))}: {empty} shards in a row hold no samples; expected TARs of "
                    "image + caption."
                )

    def _shard(self, place: str) -> Iterator[tuple[str, Mapping[str, bytes] | str]]:
        """(key, members, or why there are none) of each sample of a shard; what fails is opened again."""
        given = 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                for entry in itertools.islice(self._members(place), given, None):
                    yield entry
                    given += 1
                return
            except OSError as error:
                reason = printable(str(error), limit=200)
                if attempt == _ATTEMPTS:
                    raise DataError(
                        f"{redact_text(place)}: cannot be read ({reason}; {attempt} attempts); check the address, the "
                        "network and the command."
                    ) from error
                logger.warning("{}: {}; reading it again", redact_text(place), reason)
                time.sleep(_BACKOFF * 2 ** (attempt - 1))

    def _members(self, place: str) -> Iterator[tuple[str, Mapping[str, bytes] | str]]:
        """The samples of a shard, their keys after its name. Raises OSError."""
        name = _name(place)
        with _opened(
            place, self._cache_dir, allow_pipe=self.allow_pipe, allow_http=self.allow_http
        ) as opened:
            for key, members in stream_samples(opened):
                yield f"{name}/{key}", members

    @functools.cached_property
    def _shards(self) -> list[str]:
        places = expand_shards(self.tarfiles)
        if not self.allow_pipe and (pipe := next((p for p in places if p.startswith("pipe:")), None)):
            raise DataError(
                f"{redact_text(pipe)}: runs a command; set dataset.allow_pipe=true on the command line, or in a Python "
                "config, if you trust it, or name files."
            )
        return places

    def __repr__(self) -> str:
        return f"WebDatasetStream({redact_text(repr(self.tarfiles))}, mapper={self.mapper!r})"


class _Raw(NamedTuple):
    """A sample as it is in its shard, or why it is none."""

    shard: int
    number: int  # within the shard
    key: str
    members: Mapping[str, bytes] | str
    next_shard: int  # of the same reader


def _numbers(places: Sequence[Place]) -> list[int]:
    numbers = [place for place in places if isinstance(place, int)]
    if len(numbers) != len(places):
        raise DataError("cannot resume: the run mixed streams, and now there is one; restore dataset.")
    return numbers


@contextlib.contextmanager
def _opened(place: str, cache_dir: Path | None, *, allow_pipe: bool, allow_http: bool) -> Iterator[Any]:
    """The bytes of a shard from its beginning. Raises OSError, for a command also when it fails in the end."""
    if place.startswith("pipe:"):
        if not allow_pipe:
            raise DataError(f"{redact_text(place)}: runs a command, which is not allowed.")
        from webdataset.gopen import gopen_pipe

        # Only this goes through webdataset's opener, which would hand http and other addresses to a shell as well.
        stream = gopen_pipe(place)
        try:
            yield stream
            stream.close()
        except OSError as error:
            raise OSError(f"its command ends with status {stream.proc.poll()}") from error
        finally:
            with contextlib.suppress(OSError):  # of a command that is given up
                stream.close()
        return
    handles = FileHandles(1)
    source = open_source(place, handles, cache_dir=cache_dir, allow_http=allow_http)
    with io.BufferedReader(_SourceBytes(source), _READ_AT_ONCE) as file:
        yield file


class _SourceBytes(io.RawIOBase):
    """A shard that can be read at any place, as a file that is read to its end."""

    def __init__(self, source: Source) -> None:
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._source.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _name(place: str) -> str:
    """A short name for keys."""
    if place.startswith("pipe:"):
        return f"pipe-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    return printable(redact_text(place.partition("?")[0].rpartition("/")[2]), limit=80)


@configurable("dataset")
@dataclasses.dataclass(eq=False, repr=False)
class MixedStreams:
    """Several streams read together, each with about the given share of the samples.

    Each reader takes from its streams in the given shares, exactly until the run stops. A resumed run leaves out what
    was read of the present shards, of each source another number, and starts its count anew.

    Args:
        sources: Name -> stream.
        mix: Name -> weight above 0, as for MixedSources.
        max_bad_fraction: Share of bad samples, of all sources together, at which training stops.

    Raises:
        ValueError: when the weights do not name the sources, or are no numbers above 0.
        ConfigError: when a source is no stream.
    """

    sources: Mapping[str, StreamDataset]
    mix: Mapping[str, float]
    _: dataclasses.KW_ONLY
    max_bad_fraction: float = 0.1

    def __post_init__(self) -> None:
        number("max_bad_fraction", self.max_bad_fraction, least=0, most=1)
        self._pattern: MixPattern = check_mix(self.sources, self.mix)
        for name, source in self.sources.items():
            if not is_stream(source):
                raise ConfigError(
                    f"dataset.sources.{name}: is no stream; mix indexed sources with MixedSources, which is exact."
                )

    def prepare(self) -> None:
        """Prepare every source, and log the shares. Raises DataError."""
        for source in self.sources.values():
            getattr(source, "prepare", lambda: None)()
        shares = ", ".join(f"{name} {share:.2%}" for name, share in self._pattern.shares.items())
        logger.info("mix of streams: about {}; approximate, as a resumed run leaves samples out", shares)

    def __len__(self) -> int:
        """The sum of those of the sources."""
        return sum(len(source) for source in self.sources.values())

    @property
    def fingerprint(self) -> str:
        """Of the sources and their shares."""
        parts = [f"{name} {source.fingerprint}" for name, source in self.sources.items()]
        return hashlib.sha256(f"{parts} {self._pattern.counts.tolist()}".encode()).hexdigest()

    @property
    def tokenizer(self) -> Any:
        """That of the first source."""
        return getattr(next(iter(self.sources.values())), "tokenizer", None)

    def first_place(self, reader: Reader) -> Place:
        """That of each source."""
        return {name: _one(source.first_place(reader)) for name, source in self.sources.items()}

    def rearranged(self, places: Sequence[Place], reader: Reader) -> Place:
        """That of each source."""
        by_name = self._by_name(places)
        return {
            name: _one(source.rearranged([place[name] for place in by_name], reader))
            for name, source in self.sources.items()
        }

    def _by_name(self, places: Sequence[Place]) -> list[dict[str, int]]:
        """Copies of the places of this mixture. Raises DataError for those of another one."""
        by_name = [dict(place) for place in places if isinstance(place, dict)]
        if len(by_name) < len(places) or any(set(place) != set(self.sources) for place in by_name):
            raise DataError("cannot resume: the run read other sources; restore dataset.sources.")
        return by_name

    def read_stream(self, seed: int, reader: Reader, place: Place) -> Iterator[StreamItem]:
        """From each source in its turn; keys begin with the name of the source."""
        (now,) = self._by_name([place])
        streams = {
            name: source.read_stream(source_seed(seed, name), reader, now[name])
            for name, source in self.sources.items()
        }
        for position in itertools.count():
            name = self._pattern.names[self._pattern.at(seed + reader.number, position)[0]]
            for item in streams[name]:
                now = {**now, name: _one(item.place)}
                if item.sample is not None:
                    yield StreamItem({**item.sample, "key": f"{name}:{item.sample['key']}"}, None, now)
                    break
                if item.bad is not None:
                    yield StreamItem(None, (f"{name}:{item.bad[0]}", item.bad[1]), now)

    def count_keys(self, keys: Sequence[str]) -> dict[str, int]:
        """How many of these keys are of each source."""
        names = [key.partition(":")[0] for key in keys]
        return {name: names.count(name) for name in self.sources}

    def __repr__(self) -> str:
        return f"MixedStreams({self._pattern.shares})"


def _one(place: Place) -> int:
    if not isinstance(place, int):
        raise ConfigError("dataset.sources: a mixture of streams cannot be a source of another one.")
    return place
