"""Fetching the published files of the compositionality sets, where they can be."""

import importlib.resources
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hypvl.errors import DataError, MissingDataError
from hypvl.io.archives import unpack
from hypvl.io.json_text import parse_json
from hypvl.io.remote import DownloadError, download


@cache
def published_files() -> dict[str, Any]:
    """Set -> its homepage, and the address of each of its files or (unpacked from a ZIP) folders."""
    file = importlib.resources.files(__package__) / "composition_files.json"
    content: dict[str, Any] = parse_json(file.read_text("utf-8"))
    return content


def provide(name: str, root: Path, wanted: Sequence[str], *, fetch: bool) -> None:
    """Make sure that some published files and folders of a set are in its folder.

    What is there stays as it is. A file is downloaded to ``root/.downloads`` and moved when it has been read as
    JSON, so that the page of a server that is out of patience never becomes a data set; the images of a folder
    appear when all of the archive could be read.

    Args:
        name: A set of :func:`published_files`.
        root: Its folder.
        wanted: Files and folders.
        fetch: Download what is missing.

    Raises:
        MissingDataError: saying what to put where, when something is missing and is not, or cannot be, downloaded.
        DataError: when it cannot be written.
    """
    known = published_files()[name]
    lost = [part for part in wanted if not (root / part).exists()]
    by_hand = (
        f"put {' and '.join(lost)} of {known['homepage']} into {root}, or give another folder by an override"
    )
    if lost and not fetch:
        raise MissingDataError(
            f"{root / lost[0]}: is not there (looked in {Path.cwd()}); {by_hand}; download=true in its config "
            "fetches what can be fetched."
        )
    for part in lost:
        try:
            _fetch(known["files"][part], root, part)
        except DownloadError as error:
            raise MissingDataError(
                f"{root / part}: could not be downloaded: {error} By hand: {by_hand}."
            ) from error


def _fetch(url: str, root: Path, part: str) -> None:
    folder = Path(part).suffix == ""
    arrived = root / ".downloads" / (f"{part}.zip" if folder else part)
    download(url, arrived)
    if folder:
        try:
            unpack(arrived, root, kind="zip")
        except DataError as error:
            _give_up(arrived, url, str(error), error)
        if not (root / part).is_dir():
            _give_up(arrived, url, f"holds no folder {part}", None)
        arrived.unlink()
        return
    try:
        parse_json(arrived.read_bytes())
    except ValueError as error:
        _give_up(arrived, url, "is not JSON", error)
    arrived.replace(root / part)


def _give_up(arrived: Path, url: str, why: str, cause: Exception | None) -> None:
    """What came is no data: away with it, or the next run would take it for the file."""
    arrived.unlink(missing_ok=True)
    raise DownloadError(f"{url}: what the server sends cannot be used ({why}).") from cause
