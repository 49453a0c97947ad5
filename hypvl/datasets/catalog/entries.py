"""What each published set is and where its files come from: sets.json as typed records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from hypvl.checks import closest
from hypvl.errors import ConfigError, MissingDataError
from hypvl.io.json_text import parse_json

#: What every set can be asked for.
SPLITS: tuple[str, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Part:
    """A piece of a published split, in shuffled order."""

    published: str  # the split it is cut from
    begin: float  # first image (int), or share of them (float in [0, 1])
    end: float  # one after the last, of the same type


@dataclass(frozen=True)
class FileSource:
    """A file on a server."""

    url: str  # http or https
    into: str  # folder below the root where it is unpacked, or put
    unpack: str  # "tar", "zip", "gz", or "none" for a file that is used as it is
    md5: str | None = None  # hex digest of the file, where one is known
    file: str | None = None  # name of the file when it is not an archive of several
    inner: str | None = None  # an archive inside the archive that is unpacked too (TAR)
    splits: tuple[str, ...] = ()  # published splits it is needed for; empty = all


@dataclass(frozen=True)
class SetEntry:
    """One classification set."""

    name: str  # as configs give it
    core: bool  # whether it is one of the 20 of the hyperbolic papers
    reader: str  # "folders", "webdataset", "cifar10", ..., or "torchvision:<class>"
    folder: str  # where it lies below the root, ``{split}`` standing for the reader's name of a split
    published: Mapping[str, Mapping[str, Any]]  # splits there are, each with the reader's arguments
    sizes: Mapping[str, int]  # images of published splits, where known
    classes: int  # how many
    files: tuple[str, ...]  # what belongs below the root, for people
    homepage: str  # where the set is described or can be asked for
    # How train, val and test are cut from published splits, where they are not published themselves.
    parts: Mapping[str, Part]
    downloads: tuple[FileSource, ...]  # where its files come from; none = by hand
    # Share of the training images that becomes the validation split where there is none.
    validation: float | None = None
    per_class: int | None = None  # training images of each class, cut from the published split "all"
    webdataset: str | None = None  # address of the set in the WebDataset layout
    note: str | None = None  # what else to know

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
    """The entry of a set. Raises ConfigError for an unknown name, with the closest known one."""
    check_name(name, list(entries()))
    return entries()[name]


def check_name(name: str, names: Sequence[str], *, what: str = "data set") -> None:
    """Raise ConfigError unless ``name`` is one of ``names``."""
    if name not in names:
        near = closest(name, names, cutoff=0.0)
        raise ConfigError(f"{what} {name!r}: unknown (closest: {near}); expected one of {', '.join(names)}.")


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
