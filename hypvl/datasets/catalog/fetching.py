"""Fetching classification sets from where they are published."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from hypvl.checks import natural_number
from hypvl.datasets.catalog.entries import FileSource, SetEntry
from hypvl.errors import DataError, MissingDataError
from hypvl.io.archives import Archive, unpack
from hypvl.io.files import read_regular
from hypvl.io.hub import download_from_hub
from hypvl.io.redact import printable
from hypvl.io.remote import MAX_DOWNLOAD, DownloadError, download, only_one

MOST_TARS = 100_000  # of one split of a WebDataset; the largest sets have some thousands
_LARGEST_TEXT = 1 << 24  # bytes of a list of names


def fetch(
    entry: SetEntry, root: Path, splits: Sequence[str], *, reason: MissingDataError | None = None
) -> None:
    """Bring what some published splits of a set need into ``root``.

    Archives lie in ``root/.downloads`` until they are unpacked. An interrupted download continues. Call it inside
    :func:`one_fetch`, after looking again whether another process has brought the set meanwhile.

    Args:
        entry: The set.
        root: Folder of the sets.
        splits: Published splits (of the WebDataset layout: those asked for).
        reason: What was missing, for the message.

    Raises:
        MissingDataError: when it cannot be fetched, with the files to put there by hand.
        DataError: when it cannot be written, or is damaged.
    """
    try:
        for source in entry.downloads:
            if not source.splits or set(source.splits) & set(splits):
                _fetch_file(source, root)
        if not entry.downloads and entry.webdataset is not None:
            fetch_webdataset(entry.webdataset, root / entry.name, splits)
    except DownloadError as error:
        note = "" if entry.note is None else f" ({entry.note})"
        missing = "" if reason is None else f" {reason}"
        raise MissingDataError(
            f"{entry.name}: could not be downloaded: {error} By hand: take it from {entry.homepage}{note} and put "
            f"{'; '.join(entry.files)} into {root}.{missing}"
        ) from error


def can_write(root: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself where it is not there."""
    place = root.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def one_fetch(entry: SetEntry, root: Path) -> AbstractContextManager[None]:
    """Lets one process at a time fetch a set."""
    return only_one(root / ".downloads" / entry.name)


def _fetch_file(source: FileSource, root: Path) -> None:
    folder = root / source.into
    if source.file is not None and (folder / source.file).is_file():
        return
    if source.unpack == "none":
        with _bar(source.url) as progress:
            download(source.url, folder / cast(str, source.file), md5=source.md5, progress=progress)
        return
    archive = root / ".downloads" / source.url.rpartition("/")[2]
    with _bar(source.url) as progress:
        download(source.url, archive, md5=source.md5, progress=progress)
    unpack(archive, folder, kind=cast(Archive, source.unpack), name=source.file)
    if source.inner is not None:
        inner = folder / source.inner
        if not inner.is_file():
            raise DataError(f"{archive}: has no {source.inner}; expected the published archive.")
        unpack(inner, folder, kind="tar")
        inner.unlink()
    archive.unlink(missing_ok=True)


def fetch_webdataset(address: str, folder: Path, splits: Sequence[str]) -> None:
    """Bring a set in the WebDataset layout from a server; from the Hugging Face hub by the hub's own client.

    Args:
        address: http(s) address of the set.
        folder: Where to put it.
        splits: Folders of it, such as "test".

    Raises:
        DownloadError: when a file cannot be fetched.
    """

    def bring(name: str, *, text: bool = True) -> Path:
        url, target = f"{address}/{name}", folder / name
        if not download_from_hub(url, target):
            with _bar(url) as progress:
                limit = _LARGEST_TEXT if text else MAX_DOWNLOAD
                download(url, target, max_bytes=limit, progress=None if text else progress)
        return target

    for split in splits:
        count = bring(f"{split}/nshards.txt")
        text = read_regular(count, max_bytes=_LARGEST_TEXT).decode("utf-8", "replace").strip()
        number = natural_number(text)
        if number is None or not 1 <= number <= MOST_TARS:
            raise DataError(f"{count}: says {text[:40]!r}; expected the number of TARs, 1 to {MOST_TARS}.")
        for i in range(number):
            bring(f"{split}/{i}.tar", text=False)
    # The last one is what a set is recognised by.
    for name in ("zeroshot_classification_templates.txt", "classnames.txt"):
        bring(name)


@contextmanager
def _bar(url: str) -> Iterator[Callable[[int, int | None], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None  # rich < 14.3 ends a bar with an empty line even where it is disabled
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(printable(url.rpartition("/")[2]), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
