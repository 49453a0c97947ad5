"""Reader of the WebDataset layout of classification sets, from a folder or a server."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.checks import natural_number, whole_number
from hypvl.data.storage import FileHandles, open_source
from hypvl.datasets.catalog.fetching import tar_count
from hypvl.datasets.files import read_lines, require_folder, text_lines
from hypvl.datasets.images import LabelledImages, TarMembers
from hypvl.errors import DataError, MissingDataError
from hypvl.io.arrays import read_npy
from hypvl.io.redact import redact_url
from hypvl.io.remote import RemoteError, RemoteFile

_LARGEST_TEXT = 1 << 24  # bytes of a list of names on a server


@configurable("evaluate")
@dataclass(frozen=True)
class SampleGroups:
    """Groups of images by a number of each sample's ``.npy``, an array of whole numbers that says more of the image.

    Args:
        column: Place of the number in the array, from 0.
        names: What the numbers 0, 1 ... of it are.

    Raises:
        ValueError: for a negative column, or no names.
    """

    column: int
    names: Sequence[str]

    def __post_init__(self) -> None:
        whole_number("column", self.column, least=0)
        if isinstance(self.names, str) or not self.names:
            raise ValueError(f"names: got {self.names!r}; expected a list of at least one name.")

    def read(self, members: TarMembers, i: int) -> str:
        """The group of a sample; raises DataError naming it."""
        extension = next((e for e in members.extensions(i) if e.rpartition(".")[2] == "npy"), "npy")
        content = members.read(i, extension)
        try:
            row = read_npy(io.BytesIO(content)).reshape(-1)
            value = float(row[self.column])
        except (ValueError, TypeError, IndexError, EOFError, OSError) as error:
            raise DataError(
                f"{members.key(i)}: its .{extension} has no number at {self.column} ({error})."
            ) from error
        if value not in range(len(self.names)):
            raise DataError(
                f"{members.key(i)}: its .{extension} has {value:g} at {self.column}; expected 0 … "
                f"{len(self.names) - 1} for {', '.join(self.names)}. Set another column, or other names."
            )
        return self.names[int(value)]


@configurable("evaluate")
class WebDatasetSet(LabelledImages):
    """The WebDataset classification layout.

    ``root/classnames.txt`` and ``root/zeroshot_classification_templates.txt`` (one a line, ``{c}`` is the place
    of the name; without that file the set has no prompts), ``root/<split>/nshards.txt`` and
    ``root/<split>/{0 …}.tar`` with an image and a ``.cls`` (the class number as text) per sample.
    ``root/dataset_type.txt``, where there is one, must say ``classification``.

    Args:
        root: The folder of the set, or its http(s) address.
        split: ``"test"``, ``"train"`` ...
        groups: How a sample says which group its image is of; None = the images have no groups.

    Raises:
        MissingDataError: naming the file or folder that is not there.
        DataError: for a file that cannot be read as what it should be.
    """

    def __init__(self, root: str | Path, *, split: str = "test", groups: SampleGroups | None = None) -> None:
        if not is_url(root):
            require_folder(Path(root), "classnames.txt and a folder per split")
        classes = _lines(_within(root, "classnames.txt"))
        prompts = _lines_if_there(_within(root, "zeroshot_classification_templates.txt"))
        kind = _within(root, "dataset_type.txt")
        kinds = _lines_if_there(kind) or []
        if kinds not in ([], ["classification"]):
            raise DataError(f"{_shown(kind)}: says {' '.join(kinds)[:40]!r}; expected classification.")
        count = _within(root, f"{split}/nshards.txt")
        number = tar_count(" ".join(_lines(count)), _shown(count))
        tars = [_within(root, f"{split}/{i}.tar") for i in range(number)]
        missing = [path.name for path in tars if isinstance(path, Path) and not path.is_file()]
        if missing:
            raise MissingDataError(
                f"{_within(root, split)}: lacks {', '.join(missing[:5])} ({len(missing)} of {len(tars)} TARs that "
                "nshards.txt counts); download them."
            )
        members = TarMembers(tars)
        super().__init__(
            members,
            [_label(members, i) for i in range(len(members))],
            classes=classes,
            keys=[members.key(i) for i in range(len(members))],
            prompts=prompts,
            groups=() if groups is None else [groups.read(members, i) for i in range(len(members))],
        )

    @staticmethod
    def stored_splits(root: str | Path, names: Sequence[str]) -> tuple[str, ...]:
        """Those of ``names`` that have a ``nshards.txt``."""
        return tuple(name for name in names if _exists(_within(root, f"{name}/nshards.txt")))


def _label(members: TarMembers, i: int) -> int:
    text = members.read(i, "cls").decode("utf-8", "replace").strip()
    label = natural_number(text)
    if label is None:
        raise DataError(f"{members.key(i)}: its .cls says {text[:40]!r}; expected a class number.")
    return label


def is_url(place: str | Path) -> bool:
    """Whether it is an http(s) address."""
    return isinstance(place, str) and place.startswith(("http://", "https://"))


def _within(root: str | Path, name: str) -> str | Path:
    return f"{str(root).rstrip('/')}/{name}" if is_url(root) else Path(root) / name


def _exists(place: str | Path) -> bool:
    """Raises DataError when a server gives no answer, or another one than yes or no."""
    return place.is_file() if isinstance(place, Path) else _remote(place) is not None


def _remote(url: str) -> RemoteFile | None:
    file = RemoteFile(url)
    try:
        file.size()
    except RemoteError as error:
        if error.status in (403, 404, 410):
            return None
        raise
    return file


def _lines(place: str | Path) -> list[str]:
    lines = _lines_if_there(place)
    if lines is None:
        raise MissingDataError(f"{_shown(place)}: is not there; expected a set in the WebDataset layout.")
    return lines


def _lines_if_there(place: str | Path) -> list[str] | None:
    if isinstance(place, Path):
        return read_lines(place) if place.is_file() else None
    remote = _remote(place)
    if remote is None:
        return None
    if remote.size() > _LARGEST_TEXT:
        raise DataError(f"{remote.place}: has {remote.size()} bytes; expected a list of names.")
    file = remote if remote.accepts_ranges() else open_source(place, FileHandles())
    try:
        text = file.read(0, file.size()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{remote.place}: cannot be read as UTF-8 text ({error}).") from error
    return [line.strip() for line in text_lines(text) if line.strip()]


def _shown(place: str | Path) -> str:
    return redact_url(place) if isinstance(place, str) else str(place)
