"""Readers of labelled images: class folders, the WebDataset layout, JSON lists, torchvision's sets."""

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import natural_number
from hypvl.data.storage import FileHandles, open_source
from hypvl.errors import DataError, MissingDataError
from hypvl.datasets.folder_names import listed, match_names
from hypvl.datasets.images import IMAGE_EXTENSIONS, TarMembers, read_image
from hypvl.datasets.prompts import imagenet_class_names
from hypvl.io.files import read_regular
from hypvl.io.images import image_tensor
from hypvl.io.json_text import parse_json
from hypvl.io.redact import redact_url
from hypvl.io.remote import RemoteError, RemoteFile

_LARGEST_TEXT = 1 << 24  # bytes of a list of names on a server
_LARGEST_FILE = 1 << 32  # bytes of a text or JSON file

MOST_TARS = 100_000  # of one split; the largest sets have some thousands


@configurable("evaluate")
class ImageFolderSet:
    """One folder per class, images anywhere below it; links are followed.

    Classes are the folders in sorted order, images of a class in sorted order.

    Args:
        root: The folder of class folders.
        class_names: Names by folder, or in the folders' order; None = the folders' names, with ``_`` read as a space.
        prompts: The set's own prompts, templates or whole ones by class name, or None.

    Attributes:
        folders: What the class folders are called, in the order of the classes.

    Raises:
        MissingDataError: when ``root`` is not there, has no class folders, or they hold no images.
        DataError: when the names do not match the folders.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        class_names: Sequence[str] | Mapping[str, str] | None = None,
        prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.root = Path(root)
        require_folder(self.root, "a folder with one folder per class")
        folders = class_folders(self.root)
        if not folders:
            raise MissingDataError(f"{self.root}: holds no class folders; expected one folder per class.")
        self.folders = folders
        self.classes = (
            [name.replace("_", " ") for name in folders]
            if class_names is None
            else match_names(folders, class_names, where=self.root)
        )
        self.prompts = prompts
        self.paths: list[Path] = []
        self.labels: list[int] = []
        for label, folder in enumerate(folders):
            found = images_below(self.root / folder)
            self.paths += found
            self.labels += [label] * len(found)
        if not self.paths:
            raise MissingDataError(
                f"{self.root}: its {len(folders)} class folders hold no images; expected files that end in "
                f"{', '.join(IMAGE_EXTENSIONS)}."
            )
        self.keys = [path.relative_to(self.root).as_posix() for path in self.paths]
        self.ids = [str(path) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 (3, h, w), label); raises DataError naming the file."""
        return read_image(self.paths[index]), self.labels[index]


@configurable("evaluate")
def imagenet(root: str | Path, *, split: str = "val") -> ImageFolderSet:
    """ImageNet-1k as class folders: ``root/{train,val}/n01440764/*.JPEG`` … ``n15075141``.

    The 1,000 folders are WordNet ids; their sorted order is the order of open_clip's class names.

    Raises:
        MissingDataError: when the split is not there.
        DataError: when the folders are not the 1,000 WordNet ids, listing differences.
    """
    from timm.data import ImageNetInfo

    folder = Path(root) / split
    require_folder(folder, "ImageNet with 1,000 folders of WordNet ids (n01440764 …)")
    names = class_folders(folder)
    known = list(ImageNetInfo("imagenet-1k").label_names())
    wrong, lost = sorted(set(names) - set(known)), sorted(set(known) - set(names))
    if wrong or lost:
        raise DataError(
            f"{folder}: has {len(names)} class folders, of which {listed(wrong)} no class of ImageNet-1k, and "
            f"{listed(lost)} missing; expected exactly the 1,000 folders n01440764 … n15075141."
        )
    return ImageFolderSet(folder, class_names=dict(zip(known, imagenet_class_names(), strict=True)))


@configurable("evaluate")
class WebDatasetSet:
    """The WebDataset classification layout.

    ``root/classnames.txt`` and ``root/zeroshot_classification_templates.txt`` (one a line, ``{c}`` is the place
    of the name; without that file the set has no prompts), ``root/<split>/nshards.txt`` and
    ``root/<split>/{0 …}.tar`` with an image and a ``.cls`` (the class number as text) per sample.
    ``root/dataset_type.txt``, where there is one, must say ``classification``.

    Args:
        root: The folder of the set, or its http(s) address.
        split: ``"test"``, ``"train"`` ...

    Raises:
        MissingDataError: naming the file or folder that is not there.
        DataError: for a file that cannot be read as what it should be.
    """

    def __init__(self, root: str | Path, *, split: str = "test") -> None:
        if not is_url(root):
            require_folder(Path(root), "classnames.txt and a folder per split")
        self.root = root
        self.classes = _lines(_within(root, "classnames.txt"))
        self.prompts = _lines_if_there(_within(root, "zeroshot_classification_templates.txt"))
        kind = _within(root, "dataset_type.txt")
        kinds = _lines_if_there(kind) or []
        if kinds not in ([], ["classification"]):
            raise DataError(f"{_shown(kind)}: says {' '.join(kinds)[:40]!r}; expected classification.")
        count = _within(root, f"{split}/nshards.txt")
        lines = _lines(count)
        number = natural_number(lines[0]) if len(lines) == 1 else None
        if number is None or not 1 <= number <= MOST_TARS:
            raise DataError(
                f"{_shown(count)}: says {' '.join(lines)[:40]!r}; expected one number of TARs, 1 to {MOST_TARS}."
            )
        tars = [_within(root, f"{split}/{i}.tar") for i in range(number)]
        lost = [path.name for path in tars if isinstance(path, Path) and not path.is_file()]
        if lost:
            raise MissingDataError(
                f"{_within(root, split)}: lacks {', '.join(lost[:5])} ({len(lost)} of {len(tars)} TARs that "
                "nshards.txt counts); download them."
            )
        self._members = TarMembers(tars)
        self.keys = [self._members.key(i) for i in range(len(self._members))]
        self.ids = [self._members.id(i) for i in range(len(self._members))]
        self.labels = [self._label(i) for i in range(len(self._members))]

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 (3, h, w), label); raises DataError naming the sample."""
        return self._members.image(index), self.labels[index]

    @staticmethod
    def stored_splits(root: str | Path, names: Sequence[str]) -> tuple[str, ...]:
        """Those of ``names`` that have a ``nshards.txt``."""
        return tuple(name for name in names if _exists(_within(root, f"{name}/nshards.txt")))

    def _label(self, i: int) -> int:
        text = self._members.read(i, "cls").decode("utf-8", "replace").strip()
        label = natural_number(text)
        if label is None:
            raise DataError(f"{self.keys[i]}: its .cls says {text[:40]!r}; expected a class number.")
        return label


class TorchvisionSet:
    """A set of torchvision as uint8 tensors.

    Args:
        dataset: Made by torchvision; ``dataset[i] -> (PIL image, label)``.
        classes: Names in the order of the labels.
        labels: Label of each image.
        ids: Where each image is, for sets of image files.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        classes: Sequence[str],
        labels: Sequence[int],
        ids: Sequence[str] | None = None,
    ) -> None:
        self._dataset = dataset
        self.classes = list(classes)
        self.prompts = None
        self.labels = [int(label) for label in labels]
        self.keys = [str(i) for i in range(len(dataset))]
        self.ids = None if ids is None else list(ids)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 (3, h, w), label); raises DataError naming the set and the position."""
        try:
            image = image_tensor(self._dataset[index][0])
        except (OSError, SyntaxError, ValueError) as error:  # what PIL raises on damaged files
            name = type(self._dataset).__name__
            raise DataError(f"{name}[{index}]: cannot be read ({type(error).__name__}: {error}).") from error
        return image, self.labels[index]


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


def require_folder(folder: Path, layout: str) -> None:
    """Raise MissingDataError, saying what to do, unless ``folder`` is there."""
    if not folder.is_dir():
        raise MissingDataError(
            f"{folder}: is not there (looked in {Path.cwd()}); put {layout} there, or give the folder by an override."
        )


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty, stripped."""
    return [line.strip() for line in text_lines(read_text(path)) if line.strip()]


def text_lines(text: str) -> list[str]:
    """Lines as files have them, ended by LF, CR LF or CR; ``str.splitlines`` would also cut at U+2028 and the like."""
    return io.StringIO(text, newline=None).read().split("\n")


def read_text(path: Path) -> str:
    """A UTF-8 file.

    Raises:
        MissingDataError: when it is not there.
        DataError: when it cannot be read.
    """
    try:
        data = read_regular(path, max_bytes=_LARGEST_FILE)
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path}: is UTF-16; expected UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW.")
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise MissingDataError(
            f"{path}: is not there; see docs/evaluation.md for the layout of the set."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read as UTF-8 text ({reason}).") from error


def read_json(path: Path) -> Any:
    """A JSON file; raises as :func:`read_text`, and DataError for broken JSON."""
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: is not valid JSON ({error}).") from error


def class_folders(root: Path) -> list[str]:
    """Names of the folders in ``root``, sorted; without hidden ones and those that a Mac's archives leave behind."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not _left_behind(path.name))


def images_below(folder: Path) -> list[Path]:
    """Image files anywhere below a folder, in sorted order; links are followed, what is hidden is left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _left_behind(name))
        found += [
            Path(where, name)
            for name in files
            if name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and not _left_behind(name)
        ]
    return sorted(found)


def _left_behind(name: str) -> bool:
    """Whether a system or an editor made it: ``.ipynb_checkpoints``, ``._1.png``, ``__MACOSX``."""
    return name.startswith(".") or name == "__MACOSX"
