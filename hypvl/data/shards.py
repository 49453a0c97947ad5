"""Image-text pairs in TAR shards (WebDataset files), read at any place through an index of each TAR."""

import bisect
import contextlib
import dataclasses
import errno
import functools
import glob
import hashlib
import itertools
import math
import os
import re
import string
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import braceexpand
import numpy as np
from loguru import logger

from hypvl.allowlist import configurable
from hypvl.data.augment import InModalAugment
from hypvl.data.mappers import Mapper
from hypvl.data.sample import BadSample, ImageTransform, PairReader, Sample, Tokenize
from hypvl.data.storage import FileHandles, LocalFile, Source, open_source, user_cache
from hypvl.data.tar_index import (
    MemberError,
    ReadAhead,
    TarIndex,
    build_index,
    load_index,
    read_members,
    save_index,
)
from hypvl.errors import DataError
from hypvl.io.filesystem import glob_store, scheme_of
from hypvl.io.images import MAX_PIXELS
from hypvl.io.redact import redact_text
from hypvl.io.tar import Read

_INDEX_SUFFIX = ".hypvl-index"
_THREADS = 8
#: Shards that one entry of a list may stand for, and all of them together.
MAX_SHARDS = 1_000_000
_DEEPEST_BRACES = 20
_ESCAPED = re.compile(r"\0|\\.", re.DOTALL)
_INNERMOST = re.compile(r"\{([^{}]*)\}")
_ALPHABET = string.ascii_uppercase + string.ascii_lowercase
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")


@configurable("dataset")
@dataclasses.dataclass(eq=False, repr=False)
class ImageTextShards(PairReader):
    """Samples of TAR shards, by row: the shards in the order given, in each the samples in theirs.

    Args:
        tarfiles: Paths, globs, brace lists (``{0000..0099}.tar``), addresses (http, s3, gs, hf ...), ``pipe:``
            commands; a list, or one text with commas between them.
        mapper: Makes image and caption from a sample's members.
        cache_dir: Folder where shards at addresses are downloaded once; None reads them in parts.
        allow_pipe: Allow ``pipe:``, which runs commands.
        allow_http: Allow plain http, which anybody on the way can change. As for ``allow_pipe``, a config that is data
            cannot say so.

    The others: :class:`hypvl.data.sample.PairReader`.
    """

    tarfiles: str | Sequence[str]
    mapper: Mapper
    image_transform: ImageTransform
    tokenizer: Tokenize | None = None
    _: dataclasses.KW_ONLY
    shuffle_window: int = 4000
    max_bad_fraction: float = 0.1
    cache_dir: str | Path | None = None
    allow_pipe: bool = False
    allow_http: bool = False
    max_pixels: int = MAX_PIXELS
    augment: InModalAugment | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._cache_dir = None if self.cache_dir is None else Path(self.cache_dir).expanduser()
        self._handles = FileHandles()

    def prepare(self) -> None:
        """Find, download and index the shards. Raises DataError for one missing or no TAR, or without samples."""
        logger.info("{} samples in {} shards", len(self), len(self._shards))

    def shard_sizes(self) -> list[int]:
        """Samples of each shard."""
        return [len(index) for _, index in self._shards]

    def __len__(self) -> int:
        return self._ends[-1]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the names, places and sizes of all members, and of what is made of them (not of their paths)."""
        total = hashlib.sha256()
        for _, index in self._shards:
            total.update(index.digest.encode())
        total.update(self.describe(self.mapper, self.image_transform, self.max_pixels).encode())
        return total.hexdigest()

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        """The sample of a row, in [0, len). Raises BadSample when it cannot be used."""
        image_seed = int(generator.integers(2**63))  # first: the crop does not depend on the mapper's draws
        shard = bisect.bisect_right(self._ends, row)
        source, index = self._shards[shard]
        local = row - (self._ends[shard] - len(index))
        key = f"{source.name}/{index.key(local)}"
        fields = self.mapper(key, sample_members(key, source.read, index, local), generator)
        return self.finish(key, fields, image_seed=image_seed)

    @functools.cached_property
    def _shards(self) -> list[tuple[Source, TarIndex]]:
        def one(place: str) -> tuple[Source, TarIndex]:
            source = open_source(
                place, self._handles, cache_dir=self._cache_dir, allow_pipe=self.allow_pipe,
                allow_http=self.allow_http,
            )  # fmt: skip
            return source, shard_index(source)

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(one, expand_shards(self.tarfiles)))

    @functools.cached_property
    def _ends(self) -> list[int]:
        ends = np.cumsum(self.shard_sizes()).tolist()
        if ends[-1] < 1:
            raise DataError(
                f"{redact_text(str(self.tarfiles))}: no samples in {len(ends)} TAR files; expected image + caption."
            )
        return ends

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker reads the indexes again from their files instead of getting them through a pipe.
        return {name: value for name, value in self.__dict__.items() if name not in ("_shards", "_ends")}

    def __repr__(self) -> str:
        return f"ImageTextShards({redact_text(repr(self.tarfiles))}, mapper={self.mapper!r})"


def sample_members(key: str, read: Read, index: TarIndex, row: int) -> dict[str, bytes]:
    """The members of a sample by extension; BadSample when they cannot be read."""
    try:
        return read_members(read, index, row)
    except MemberError as error:
        raise BadSample(key, str(error)) from error
    except OSError as error:
        raise BadSample(key, f"cannot be read ({error})") from error


def expand_shards(tarfiles: str | Sequence[str]) -> list[str]:
    """The shards that a text or a list of texts names, in order; those of a glob sorted by name.

    Raises:
        DataError: naming the glob that matches nothing, or the file that is not there.
    """
    shards: list[str] = []
    for entry in [tarfiles] if isinstance(tarfiles, str) else tarfiles:
        if _is_file(Path(entry).expanduser()):  # whatever characters its name has
            shards.append(str(Path(entry).expanduser()))
            continue
        for part in [entry] if entry.startswith("pipe:") else _split_commas(entry):
            for place in _expand_braces(part):
                shards.extend(_match(place))
            if len(shards) > MAX_SHARDS:
                raise DataError(f"tarfiles: names more than {MAX_SHARDS} shards; expected at most so many.")
    if not shards:
        raise DataError(
            "tarfiles: names no shard; give paths, a glob such as datasets/redcaps/*.tar, or URLs."
        )
    return shards


def shard_names(places: Sequence[str]) -> list[str]:
    """A name for each file: its own without the ending, after as many of its folders as make all names differ.

    Raises:
        DataError: when a file is given twice.
    """
    parts = [Path(place.partition("?")[0]).parts for place in places]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["--".join(part.strip(":/") for part in own[-depth:]) for own in parts]
        names = [name.rpartition(".")[0] or name for name in names]
        if len(set(names)) == len(names):
            return names
    twice = next(place for i, place in enumerate(places) if parts[i] in parts[:i])
    raise DataError(f"{twice}: is given twice; name each shard once.")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a name may be: a list of them, say
        return False


def _split_commas(entry: str) -> list[str]:
    """Split at commas that are in no braces."""
    parts, depth = [""], 0
    for sign in entry:
        depth += (sign == "{") - (sign == "}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _expand_braces(part: str) -> list[str]:
    try:
        count = _count_braces(part)
        if count <= MAX_SHARDS:
            return list(braceexpand.braceexpand(part))
    except ValueError as error:
        raise DataError(
            f"{redact_text(part)}: its braces do not match; expected e.g. shard-{{0000..0099}}.tar."
        ) from error
    raise DataError(
        f"{redact_text(part)}: stands for {count if count < 10**18 else 'far too many'} shards; expected at most "
        f"{MAX_SHARDS}."
    )


def _count_braces(pattern: str) -> int:
    """How many texts a brace list stands for, without making any; ValueError where it is none, or nested too deep.

    Lists are counted from the innermost on.
    """
    pattern = _ESCAPED.sub("", pattern)  # a character after a backslash is itself
    for _ in range(_DEEPEST_BRACES + 1):
        reduced = _INNERMOST.sub(lambda match: f"\0{_count_list(match[1])}\0", pattern)
        if reduced == pattern:
            break
        pattern = reduced
    if "{" in pattern or "}" in pattern:
        raise ValueError("braces that do not match, or braces in braces in braces")
    return _product(pattern)


def _count_list(content: str) -> int:
    """How many texts stand between two braces: a range, a list, or one text."""
    spread = _RANGE.fullmatch(content)
    if spread is not None:
        first, last, step = int(spread[1]), int(spread[2]), int(spread[3] or 1) or 1
        return abs(last - first) // step + 1
    letters = _LETTERS.fullmatch(content)
    if letters is not None:
        first, last = (_ALPHABET.index(letter) for letter in letters.groups()[:2])
        return abs(last - first) // (int(letters[3] or 1) or 1) + 1
    return sum(map(_product, content.split(",")))


def _product(text: str) -> int:
    """How many texts one with counted lists in it stands for."""
    return math.prod(int(count) for count in text.split("\0")[1::2])


def _match(place: str) -> list[str]:
    if place.startswith("pipe:"):
        return [place]
    if (scheme := scheme_of(place)) is not None:
        if scheme in ("http", "https") or not glob.has_magic(place):
            return [place]
        if not (found := glob_store(place)):
            raise DataError(f"{redact_text(place)}: matches no file; check the address.")
        return found
    path = Path(place).expanduser()
    if _is_file(path):
        return [str(path)]
    if path.is_dir():
        raise DataError(f"{place}: is a folder; name the TAR files in it, e.g. {place.rstrip('/')}/*.tar.")
    if not glob.has_magic(place):
        raise DataError(f"{place}: no such file; {_advice(place)}.")
    names = glob.glob(str(path), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
    files = sorted(name for name in names if Path(name).is_file())
    if not files:
        raise DataError(f"{place}: matches no file; {_advice(place)}.")
    return files


def _advice(place: str) -> str:
    """Where shards that are not there come from."""
    if ("datasets", "demo") in itertools.pairwise(Path(place).parts):
        return "make it with hypvl demo-data"
    return "check dataset.tarfiles, and see hypvl docs datasets"


def shard_index(source: Source) -> TarIndex:
    """The index of a shard: from its file, beside the TAR or in the user's cache folder, or built and kept.

    Raises:
        DataError: when the shard cannot be read or is not a TAR.
    """
    try:
        places = _index_places(source)
        identity = source.identity()
        for place in places:
            if (index := load_index(place, identity)) is not None:
                return index
        # handles of its own, as shards are indexed by several threads
        reader = LocalFile(source.path, FileHandles(1)) if isinstance(source, LocalFile) else source
        index = build_index(ReadAhead(reader.read, reader.block), reader.size(), reader.place)
    except OSError as error:
        raise DataError(f"{source.place}: cannot be read ({error}).") from error
    if index.damage is not None:
        logger.warning("{}: {}; {} samples before that are used", source.place, index.damage, len(index) - 1)
    _keep(index, places, identity)
    return index


def _index_places(source: Source) -> list[Path]:
    """Where the index of a shard may lie, the best place first."""
    places, whole = [], getattr(source, "url", source.place)
    if isinstance(source, LocalFile):
        places.append(source.path.with_name(source.path.name + _INDEX_SUFFIX))
        whole = str(source.path.resolve())
    with contextlib.suppress(DataError):  # a user without a home folder has one place less
        mark = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        places.append(user_cache() / "index" / f"{mark}{_INDEX_SUFFIX}")
    return places


def _keep(index: TarIndex, places: Sequence[Path], identity: dict[str, Any]) -> None:
    errors: list[str] = []
    for place in places:
        try:
            if place.exists() and place.stat().st_uid not in (0, os.geteuid()):
                raise PermissionError(errno.EPERM, "belongs to another user", str(place))  # who relies on it
            place.parent.mkdir(parents=True, exist_ok=True)
            save_index(index, place, identity)
            return
        except OSError as error:
            errors.append(str(error))
    logger.warning("an index could not be kept, every process builds it again ({})", "; ".join(errors))
