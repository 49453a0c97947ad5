"""What each published set is and where its files come from: sets.json as typed records."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from hypvl.errors import ConfigError, MissingDataError
from hypvl.io.json_text import parse_json

#: What every set can be asked for.
SPLITS: tuple[str, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Part:
    """A piece of a published split, in shuffled order.

    Attributes:
        published: The split it is cut from.
        begin: First image (int), or share of them (float in [0, 1]).
        end: One after the last, of the same type.
    """

    published: str
    begin: float
    end: float


@dataclass(frozen=True)
class FileSource:
    """A file on a server.

    Attributes:
        url: http or https.
        into: Folder below the root where it is unpacked, or put.
        unpack: "tar", "zip", "gz", or "none" for a file that is used as it is.
        md5: Hex digest of the file, where one is known.
        file: Name of the file when it is not an archive of several.
        inner: An archive inside the archive that is unpacked too (TAR).
        splits: Published splits it is needed for; empty = all.
    """

    url: str
    into: str
    unpack: str
    md5: str | None = None
    file: str | None = None
    inner: str | None = None
    splits: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetEntry:
    """One classification set.

    Attributes:
        name: As configs give it.
        core: Whether it is one of the 20 of the hyperbolic papers.
        reader: "folders", "webdataset", "cifar10", ..., or "torchvision:<class>".
        folder: Where it lies below the root, ``{split}`` standing for the reader's name of a split.
        published: Splits there are, each with the reader's arguments.
        sizes: Images of published splits, where known.
        classes: How many.
        files: What belongs below the root, for people.
        homepage: Where the set is described or can be asked for.
        parts: How train, val and test are cut from published splits, where they are not published themselves.
        validation: Share of the training images that becomes the validation split where there is none.
        per_class: Training images of each class, cut from the published split "all".
        downloads: Where its files come from; none = by hand.
        webdataset: Address of the set in the WebDataset layout, or None.
        note: What else to know.
    """

    name: str
    core: bool
    reader: str
    folder: str
    published: Mapping[str, Mapping[str, Any]]
    sizes: Mapping[str, int]
    classes: int
    files: tuple[str, ...]
    homepage: str
    parts: Mapping[str, Part]
    downloads: tuple[FileSource, ...]
    validation: float | None = None
    per_class: int | None = None
    webdataset: str | None = None
    note: str | None = None

    @property
    def can_download(self) -> bool:
        """Whether a source is known."""
        return bool(self.downloads) or self.webdataset is not None

    def missing(self, folder: Path, what: str) -> MissingDataError:
        """The error for a set whose files are not (all) there: what is wrong with ``folder``, and what to do."""
        note = "" if self.note is None else f"; {self.note}"
        way = f"download=true fetches it, or take it from {self.homepage}"
        where = way if self.can_download else f"take it from {self.homepage} by hand"
        return MissingDataError(
            f"{self.name}: {folder} {what} (looked in {Path.cwd()}); expected {'; '.join(self.files)} below the root; "
            f"{where}{note}."
        )


@cache
def entries() -> Mapping[str, SetEntry]:
    """All sets, the 20 first, in the order of the papers."""
    return {name: _entry(name, fields) for name, fields in _content("sets.json")["sets"].items()}


def entry_of(name: str) -> SetEntry:
    """The entry of a set.

    Raises:
        ConfigError: for an unknown name, with the closest known one.
    """
    check_name(name, list(entries()))
    return entries()[name]


def check_name(name: str, names: Sequence[str], *, what: str = "data set") -> None:
    """Raise ConfigError unless ``name`` is one of ``names``."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise ConfigError(
            f"{what} {name!r}: unknown (closest: {near[0]}); expected one of {', '.join(names)}."
        )


@cache
def published_files() -> Mapping[str, Any]:
    """Compositionality set -> its homepage, and the address of each of its files or (unpacked from a ZIP) folders."""
    content: Mapping[str, Any] = _content("sets.json")["composition"]
    return content


def class_names(name: str) -> list[str] | None:
    """Names for the classes of a set in the order of its labels, or None where its own files have them."""
    names: list[str] | None = _class_names().get(name, {}).get("names")
    return names


def published_folders(name: str) -> list[str]:
    """What the class folders of a set are called in its published files, in the order of :func:`class_names`."""
    folders: list[str] = _class_names().get(name, {}).get("folders", [])
    return folders


@cache
def _class_names() -> Mapping[str, Mapping[str, list[str]]]:
    content: Mapping[str, Mapping[str, list[str]]] = _content("class_names.json")["sets"]
    return content


def _content(file: str) -> Any:
    return parse_json(files(__package__).joinpath(file).read_text("utf-8"))


def _entry(name: str, fields: Mapping[str, Any]) -> SetEntry:
    downloads = [
        FileSource(**{**source, "splits": tuple(source.get("splits", ()))}) for source in fields["downloads"]
    ]
    typed = {
        "files": tuple(fields["files"]),
        "parts": {split: Part(*part) for split, part in fields.get("parts", {}).items()},
        "downloads": tuple(downloads),
    }
    return SetEntry(name=name, **{**fields, **typed})
