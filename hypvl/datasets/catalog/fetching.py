"""Downloading evaluation sets from where they are published."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hypvl.checks import natural_number
from hypvl.datasets.catalog.entries import FileSource, SetEntry, published_files
from hypvl.errors import DataError, MissingDataError
from hypvl.io.archives import Archive, unpack
from hypvl.io.files import read_regular
from hypvl.io.hub import download_from_hub
from hypvl.io.json_text import parse_json
from hypvl.io.progress import terminal_bar
from hypvl.io.remote import MAX_DOWNLOAD, DownloadError, download

MOST_TARS = 100_000  # of one split of a WebDataset; the largest sets have some thousands
_LARGEST_TEXT = 1 << 24  # bytes of a list of names


def fetch(
    entry: SetEntry, root: Path, splits: Sequence[str], *, reason: MissingDataError | None = None
) -> None:
    """Download what some published splits of a set need into ``root``.

    Archives lie in ``root/.downloads`` until they are unpacked. An interrupted download continues. Only one process
    at a time may do it, after checking again whether another one has downloaded the set meanwhile.

    Args:
        splits: Published splits (of the WebDataset layout: those asked for).
        reason: The error that says what was missing, for the message.

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


def _fetch_file(source: FileSource, root: Path) -> None:
    folder = root / source.into
    if source.file is not None and (folder / source.file).is_file():
        return
    if source.unpack == "none":
        with terminal_bar(source.url.rpartition("/")[2], unit="bytes") as progress:
            download(source.url, folder / cast(str, source.file), md5=source.md5, progress=progress)
        return
    archive = root / ".downloads" / source.url.rpartition("/")[2]
    with terminal_bar(archive.name, unit="bytes") as progress:
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
    """Download a set in the WebDataset layout from an http(s) address, of the Hugging Face hub by its own client.

    ``splits`` are folders of it, such as "test". Raises DownloadError when a file cannot be fetched.
    """

    def fetch_file(name: str, *, text: bool = True) -> Path:
        url, target = f"{address}/{name}", folder / name
        if not download_from_hub(url, target):
            with terminal_bar(target.name, unit="bytes", shown=not text) as progress:
                limit = _LARGEST_TEXT if text else MAX_DOWNLOAD
                download(url, target, max_bytes=limit, progress=progress)
        return target

    for split in splits:
        count = fetch_file(f"{split}/nshards.txt")
        text = read_regular(count, max_bytes=_LARGEST_TEXT).decode("utf-8", "replace").strip()
        for i in range(tar_count(text, str(count))):
            fetch_file(f"{split}/{i}.tar", text=False)
    # classnames.txt comes last, because its presence means that the set is complete.
    for name in ("zeroshot_classification_templates.txt", "classnames.txt"):
        fetch_file(name)


def require_published(name: str, root: Path, wanted: Sequence[str], *, download_missing: bool) -> None:
    """Make sure that some published files and folders of a set are in its folder.

    What is there stays as it is. A file is downloaded to ``root/.downloads`` and moved when it has been read as
    JSON, so that an error page of a server never becomes a data set; the images of a folder appear when the whole
    archive could be read.

    Args:
        name: A set of :func:`~hypvl.datasets.catalog.entries.published_files`.

    Raises:
        MissingDataError: saying what to put where, when a part is missing and is not downloaded.
        DataError: when it cannot be written.
    """
    known = published_files()[name]
    missing = [part for part in wanted if not (root / part).exists()]
    by_hand = f"put {' and '.join(missing)} of {known['homepage']} into {root}, or give another folder by an override"
    if missing and not download_missing:
        raise MissingDataError(
            f"{root / missing[0]}: is not there (looked in {Path.cwd()}); {by_hand}; download=true in its config "
            "fetches what can be fetched."
        )
    for part in missing:
        try:
            _fetch_part(known["files"][part], root, part)
        except DownloadError as error:
            raise MissingDataError(
                f"{root / part}: could not be downloaded: {error} By hand: {by_hand}."
            ) from error


def _fetch_part(url: str, root: Path, part: str) -> None:
    folder = Path(part).suffix == ""
    arrived = root / ".downloads" / (f"{part}.zip" if folder else part)
    download(url, arrived)
    try:
        if folder:
            unpack(arrived, root, kind="zip")
            if not (root / part).is_dir():
                raise DataError(f"holds no folder {part}")
            arrived.unlink()
        else:
            parse_json(arrived.read_bytes())
            arrived.replace(root / part)
    except (DataError, ValueError) as error:
        arrived.unlink(missing_ok=True)  # or the next run would take it for the file
        why = error if isinstance(error, DataError) else f"is not JSON: {error}"
        raise DownloadError(f"{url}: what the server sends cannot be used ({why}).") from error


def tar_count(text: str, place: str) -> int:
    """The number of TARs that a ``nshards.txt`` says; raises DataError naming it when it says something else."""
    number = natural_number(text)
    if number is None or not 1 <= number <= MOST_TARS:
        raise DataError(f"{place}: says {text[:40]!r}; expected one number of TARs, 1 to {MOST_TARS}.")
    return number
