"""One unit of gathering: some rows of a list become one TAR shard, or a folder of images with its part of a table."""

import csv
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from hypvl.checks import number, one_of, whole_number
from hypvl.data.gather.fetch import UNREACHABLE, FetchError, FetchOptions, fetch_all
from hypvl.data.gather.pair_list import ListOptions, Pair, open_list
from hypvl.errors import DataError
from hypvl.io.images import ImageError, decode_image, is_plain_jpeg, to_pil
from hypvl.io.redact import printable, redact_url
from hypvl.io.tar import add_member
from hypvl.units.pool import Tick
from hypvl.units.unit import Made

Layout: TypeAlias = Literal["tar", "folder"]
#: Where images of the layout ``folder`` are, and the parts of their table.
IMAGES, TABLES, FAILURES = "images", "tables", "failures"
TABLE_HEADER = ("filepath", "title")
#: A shard of which more than this share found no server is not finished: most likely this machine has no network.
MOST_UNREACHABLE = 0.5
_LONGEST_DETAIL = 200


@dataclass(frozen=True)
class ImageSettings:
    """What becomes of an image.

    Args:
        size: Length of the shorter side in pixels to which larger images are reduced; none is enlarged.
        quality: Of the JPEGs that are written, 1 to 100.
        min_side: Images with a shorter side of fewer pixels are left out.
        max_aspect_ratio: Images whose longer side is more than this times the shorter one are left out; None = none.

    A JPEG that is upright and small enough is kept byte for byte.
    """

    size: int = 384
    quality: int = 95
    min_side: int = 1
    max_aspect_ratio: float | None = None

    def __post_init__(self) -> None:
        for name in ("size", "min_side"):
            whole_number(name, getattr(self, name), least=1)
        whole_number("quality", self.quality, least=1, most=100)
        if self.max_aspect_ratio is not None:
            number("max_aspect_ratio", self.max_aspect_ratio, least=1)


@dataclass(frozen=True)
class ShardJob:
    """The rows of one shard, and what to make of them. All of it can be sent to another process."""

    name: str  # of the shard, such as "00012"
    source: ListOptions
    rows: np.ndarray  # int64, ascending
    images: ImageSettings = field(default_factory=ImageSettings)
    fetching: FetchOptions = field(default_factory=FetchOptions)
    layout: Layout = "tar"

    def __post_init__(self) -> None:
        one_of("layout", self.layout, Layout)


@dataclass(frozen=True)
class Gathered:
    """An image as it is written, and what is noted about it."""

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    sha256: str  # of what the server sent


def gather_shard(job: ShardJob, folder: Path, tick: Tick = lambda pairs: None) -> Made:
    """Download the pairs of a job and write them into ``folder``.

    Layout ``tar``: ``NAME.tar`` with ``ROW.jpg``, ``ROW.txt`` (the caption) and ``ROW.json`` for each pair. Layout
    ``folder``: ``images/NAME/ROW.jpg`` and ``tables/NAME.tsv`` with the columns filepath and title. Both:
    ``failures/NAME.jsonl``, a row, address, reason and detail for each pair that could not be had. ROW is the row in
    the list, and pairs are in its order whatever the order in which they arrived.

    Args:
        job: What to gather.
        folder: Where the files are written; nothing else is.
        tick: Called with 1 for each pair that is done.

    Returns:
        The names of the files, and counts: ``pairs``, ``written``, and ``failed`` by reason.

    Raises:
        DataError: when the list cannot be read, or most addresses gave no connection (``MOST_UNREACHABLE``).
        OSError: when the folder cannot be written to.
    """
    pairs = open_list(job.source).read(job.rows.tolist())
    failed: Counter[str] = Counter()
    written = 0
    (folder / FAILURES).mkdir(exist_ok=True)
    failures = f"{FAILURES}/{job.name}.jsonl"
    with _writer(job, folder) as (write, files), (folder / failures).open("w", encoding="utf-8") as file:
        for pair, result in _in_order(job, pairs, tick):
            if isinstance(result, FetchError):
                failed[result.reason] += 1
                entry = {
                    "row": pair.row, "url": redact_url(pair.url), "reason": result.reason,
                    "detail": printable(result.detail, limit=_LONGEST_DETAIL),
                }  # fmt: skip
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            else:
                written += 1
                write(pair, result)
    if failed[UNREACHABLE] > MOST_UNREACHABLE * len(pairs):
        raise DataError(
            f"{job.name}: {failed[UNREACHABLE]} of {len(pairs)} addresses gave no connection; check the network of "
            "this machine, then run the same command again."
        )
    counts = {"pairs": len(pairs), "written": written, "failed": dict(sorted(failed.items()))}
    return Made([*files, failures], counts)


def _in_order(job: ShardJob, pairs: list[Pair], tick: Tick) -> Iterator[tuple[Pair, Gathered | FetchError]]:
    """Each pair with what became of it, in the order of the list."""
    results: dict[int, Gathered | FetchError] = {
        i: FetchError("bad row", pair.error) for i, pair in enumerate(pairs) if pair.error
    }
    asked = [i for i, pair in enumerate(pairs) if not pair.error]
    tick(len(results))
    nextone = 0

    def ready() -> Iterator[tuple[Pair, Gathered | FetchError]]:
        nonlocal nextone
        while nextone in results:
            yield pairs[nextone], results.pop(nextone)
            nextone += 1

    yield from ready()
    urls = [pairs[i].url for i in asked]
    for place, result in fetch_all(urls, job.fetching, lambda _, data: prepare_image(data, job.images)):
        results[asked[place]] = result
        tick(1)
        yield from ready()


def prepare_image(data: bytes, settings: ImageSettings) -> Gathered:
    """An image from the net as it is kept, by the decoder that training uses.

    Raises:
        FetchError: ``no image``, ``too small`` or ``too long`` (its aspect ratio).
    """
    try:
        pixels = decode_image(data)
    except ImageError as error:
        raise FetchError("no image", str(error)) from error
    height, width = pixels.shape[1:]
    short, long = sorted((width, height))
    if short < settings.min_side:
        raise FetchError("too small", f"{width} x {height} pixels")
    if settings.max_aspect_ratio is not None and long > settings.max_aspect_ratio * short:
        raise FetchError("too long", f"{width} x {height} pixels")
    digest = hashlib.sha256(data).hexdigest()
    if short <= settings.size and is_plain_jpeg(data):
        return Gathered(data, width, height, width, height, digest)
    image = to_pil(pixels)
    if short > settings.size:
        sides = [max(1, round(side * settings.size / short)) for side in (width, height)]
        image = image.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=settings.quality)
    return Gathered(out.getvalue(), *image.size, width, height, digest)


_Write: TypeAlias = Callable[[Pair, Gathered], None]


@contextmanager
def _writer(job: ShardJob, folder: Path) -> Iterator[tuple[_Write, list[str]]]:
    """(writes a pair, names of the files written)."""
    files: list[str] = []
    if job.layout == "tar":
        files.append(f"{job.name}.tar")
        with tarfile.open(folder / files[0], "w", format=tarfile.PAX_FORMAT) as archive:

            def to_tar(pair: Pair, image: Gathered) -> None:
                key = f"{pair.row:09d}"
                add_member(archive, f"{key}.jpg", image.jpeg)
                add_member(archive, f"{key}.txt", pair.caption.encode())
                add_member(
                    archive, f"{key}.json", json.dumps(_notes(pair, image), ensure_ascii=False).encode()
                )

            yield to_tar, files
        return
    place = f"{IMAGES}/{job.name}"
    (folder / place).mkdir(parents=True)
    (folder / TABLES).mkdir()
    table = f"{TABLES}/{job.name}.tsv"
    with (folder / table).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")

        def to_folder(pair: Pair, image: Gathered) -> None:
            name = f"{place}/{pair.row:09d}.jpg"
            (folder / name).write_bytes(image.jpeg)
            files.append(name)
            rows.writerow([name, " ".join(pair.caption.split())])

        yield to_folder, files
    files.append(table)


def _notes(pair: Pair, image: Gathered) -> dict[str, Any]:
    return {
        "caption": pair.caption, "url": redact_url(pair.url), "row": pair.row, "width": image.width,
        "height": image.height, "original_width": image.original_width, "original_height": image.original_height,
        "sha256": image.sha256,
    }  # fmt: skip
