"""The 20 sets of ELEVATER in its folder layout: index files that point into ZIP files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.catalog.entries import SPLITS, check_name
from hypvl.datasets.classification.prompts import set_templates
from hypvl.datasets.classification.zips import ZipImages
from hypvl.datasets.files import read_lines
from hypvl.datasets.images import LabelledImages
from hypvl.errors import DataError, MissingDataError
from hypvl.io.json_text import parse_json

Style: TypeAlias = Literal["clip", "subreddit"]

Label = int | tuple[int, ...]
#: Index files of a split, the first that is there is used.
_INDEXES = {split: (f"{split}.txt", f"{split}_images.txt", f"{split}_ic.txt") for split in SPLITS}
_VERSION = re.compile(r"[-_](\d{8})$")
_LABELS = re.compile(r"[0-9]{1,9}(,[0-9]{1,9})*")


@dataclass(frozen=True)
class ElevaterEntry:
    """What is known of a set of ELEVATER."""

    classes: int  # how many
    metric: Literal["accuracy", "mean_per_class", "roc_auc", "map_11_points"]  # what is reported
    multi_label: bool  # whether an image has several labels, or none
    prompts: str  # the set whose templates are used
    folders: tuple[str, ...]  # names its folder may have, in lower case without separators and version


@cache
def elevater_entries() -> Mapping[str, ElevaterEntry]:
    """All 20, in the order of their names."""
    content = parse_json(files(__package__).joinpath("elevater.json").read_text("utf-8"))
    return {
        name: ElevaterEntry(**{**fields, "folders": tuple(fields["folders"])})
        for name, fields in content["sets"].items()
    }


#: Names that :func:`elevater_set` takes.
ELEVATER_SETS: tuple[str, ...] = tuple(elevater_entries())


@configurable("evaluate")
def elevater_set(name: str, *, root: str | Path, split: str = "test") -> LabelledImages:
    """A split of a set of ELEVATER.

    Layout: ``root/<name>_<version>/`` (or ``root/classification/...``) with ``labels.txt``, one class a line, and
    per split an index, ``train.txt``, ``train_images.txt`` (CIFAR-100) or ``train_ic.txt`` (VOC 2007), whose lines are
    ``train.zip@path/in/zip.jpg 3`` or with several labels ``... 3,7``, counted from 0, beside the ZIP files.
    Separators, case and version of the folder's name do not matter; of several versions the latest is read.

    Args:
        name: One of :data:`ELEVATER_SETS`.
        split: ``"train"``, ``"test"``, or ``"val"`` where the set has one (the probes cut their own).

    Raises:
        ConfigError: for an unknown name or split.
        MissingDataError: when the set or the split is not there.
        DataError: when an index is not what it should be.
    """
    check_name(name, ELEVATER_SETS, what="ELEVATER set")
    check_name(split, SPLITS, what=f"ELEVATER set {name!r}: split")
    entry = elevater_entries()[name]
    folder = elevater_folder(name, root=root)
    index = next((folder / file for file in _INDEXES[split] if (folder / file).is_file()), None)
    if index is None:
        raise MissingDataError(
            f"{name}: {folder} has no index of the {split} split; expected one of {', '.join(_INDEXES[split])} there."
        )
    classes = [name.replace("_", " ") for name in read_lines(folder / "labels.txt")]
    rows = [
        _parse(line, f"{index}, line {number}", entry.multi_label, len(classes))
        for number, line in enumerate(read_lines(index), start=1)
    ]
    if not rows:
        raise DataError(f"{index}: names no images; expected lines `train.zip@path label`.")
    keys = [key for key, _ in rows]
    return LabelledImages(
        ZipImages(folder, index, keys),
        [label for _, label in rows],
        classes=classes,
        keys=keys,
        prompts=elevater_prompts(name),
    )


@configurable("evaluate")
def elevater_prompts(name: str, *, style: Style = "clip") -> list[str]:
    """Templates for a set of ELEVATER, those of the same images in CLIP's evaluation.

    Raises:
        ConfigError: for an unknown name.
        ValueError: for another style.
    """
    one_of("style", style, Style)
    check_name(name, ELEVATER_SETS, what="ELEVATER set")
    return set_templates(elevater_entries()[name].prompts, style=style)


def elevater_folder(name: str, *, root: str | Path) -> Path:
    """The folder of a set below ``root``, whatever its version; raises MissingDataError when there is none."""
    root = Path(root)
    wanted = elevater_entries()[name].folders
    places = [where for where in (root, root / "classification") if where.is_dir()]
    folders = [
        path for where in places for path in where.iterdir() if path.is_dir() and _stem(path) in wanted
    ]
    if not folders:
        what = f"has no folder {name}_<version>" if places else "is not there"
        raise MissingDataError(
            f"{name}: {root} {what} (looked in {Path.cwd()}); expected {name}_<version>/"
            "{labels.txt, train.txt, train.zip, test.txt, test.zip} from ELEVATER's vision-datasets storage "
            "(https://github.com/Computer-Vision-in-the-Wild/DataDownload), or another root by an override."
        )
    return max(folders, key=lambda path: (_VERSION.findall(path.name), path.name))


def _stem(path: Path) -> str:
    """``"Caltech-101_20211007"`` -> ``"caltech101"``."""
    return re.sub(r"[^a-z0-9]", "", _VERSION.sub("", path.name.lower()))


def _parse(line: str, where: str, multi_label: bool, classes: int) -> tuple[str, Label]:
    place, text = (*line.rsplit(maxsplit=1), "")[:2]
    if multi_label and not _LABELS.fullmatch(text):
        return line, ()  # an image without labels
    if not _LABELS.fullmatch(text):
        raise DataError(f"{where}: is {line[:80]!r}; expected `train.zip@path label`, labels counted from 0.")
    labels = tuple(int(part) for part in text.split(","))
    wrong = next((label for label in labels if label >= classes), None)
    if wrong is not None:
        raise DataError(f"{where}: has label {wrong}; expected 0 ... {classes - 1}, the lines of labels.txt.")
    if not multi_label and len(labels) != 1:
        raise DataError(f"{where}: has {len(labels)} labels; expected one in this set.")
    return place, labels if multi_label else labels[0]
