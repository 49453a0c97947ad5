"""Images with true and false captions, and groups of both: what the readers of such sets give and share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from hypvl.datasets.images import read_image
from hypvl.datasets.protocol import ImageSource
from hypvl.errors import DataError, MissingDataError


@dataclass(frozen=True)
class Choice:
    """A true and some false captions of one image.

    Attributes:
        image: Position of the image in the set's ``images``.
        caption: The true one.
        foils: The false ones, at least one.
        kind: The category that the choice counts in ("attribute", "swap_obj", ...).
        foil_kinds: What each foil is, where they differ; or nothing.
    """

    image: int
    caption: str
    foils: tuple[str, ...]
    kind: str
    foil_kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.foils, str) or not self.foils or len(self.foil_kinds) not in (0, len(self.foils)):
            raise ValueError(
                f"foils, foil_kinds: got {self.foils!r} and {self.foil_kinds!r}; expected a tuple of at least one "
                "text, and a kind for each or none."
            )


class ChoiceSet(Protocol):
    """Images with true and false captions.

    Attributes:
        images: Read when asked for.
        choices: In order.
        keys: A name for each image.
        means: Published averages: the name of a metric, which holds the word ``accuracy``, and the kinds whose
            accuracies have it as their plain mean.
        meta: What to say about the set in the result.
    """

    @property
    def images(self) -> ImageSource: ...
    @property
    def choices(self) -> Sequence[Choice]: ...
    @property
    def keys(self) -> Sequence[str]: ...
    @property
    def means(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Choices:
    """A :class:`ChoiceSet` in memory; its images are read when asked for."""

    images: ImageSource
    choices: Sequence[Choice]
    keys: Sequence[str]
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Two images and their captions.

    Attributes:
        images: Positions of the images in the set's ``images``.
        captions: The caption of each.
        kinds: The categories that the group counts in, possibly none.
        key: Its name.
    """

    images: tuple[int, int]
    captions: tuple[str, str]
    kinds: tuple[str, ...]
    key: str


class GroupSet(Protocol):
    """Groups of two images and two captions.

    Attributes:
        images: Read when asked for.
        groups: In order.
        meta: What to say about the set in the result.
    """

    @property
    def images(self) -> ImageSource: ...
    @property
    def groups(self) -> Sequence[Group]: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Groups:
    """A :class:`GroupSet` in memory; its images are read when asked for."""

    images: ImageSource
    groups: Sequence[Group]
    meta: Mapping[str, Any] = field(default_factory=dict)


class Box(NamedTuple):
    """A part of an image in pixels: ``x`` columns from the left, ``y`` rows from the top, ``w`` x ``h`` large."""

    x: int
    y: int
    w: int
    h: int


class Crops:
    """Images in files, or parts of them, read when asked for.

    A box that reaches over the border is cut there.

    Args:
        parts: File and box of each; None = the whole image.
    """

    def __init__(self, parts: Sequence[tuple[Path, Box | None]]) -> None:
        self.parts = list(parts)

    @property
    def ids(self) -> list[str]:
        """Where each is: the file, and the box in it."""
        return [
            str(path) if box is None else f"{path}::{','.join(map(str, box))}" for path, box in self.parts
        ]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w); raises DataError naming the file, also when nothing of it is in the box."""
        path, box = self.parts[index]
        image = read_image(path)  # (3, H, W)
        if box is None:
            return image
        part = image[:, max(0, box.y) : max(0, box.y + box.h), max(0, box.x) : max(0, box.x + box.w)]
        if not part.numel():
            raise DataError(
                f"{path}: nothing of it is in its box (x, y, w, h) = ({box.x}, {box.y}, {box.w}, {box.h}); the "
                f"image is {image.shape[2]} x {image.shape[1]} pixels."
            )
        return part


class Gatherer:
    """Collects the images of a set, each once, as its file names them again and again."""

    def __init__(self) -> None:
        self._positions: dict[tuple[Path, Box | None], int] = {}
        self._keys: list[str] = []

    def position(self, path: Path, *, key: str, box: Box | None = None) -> int:
        """Where an image, or a part of one, stands in :meth:`images`."""
        where = (path, box)
        if where not in self._positions:
            self._positions[where] = len(self._keys)
            self._keys.append(key)
        return self._positions[where]

    @property
    def paths(self) -> list[Path]:
        """File of each image."""
        return [path for path, _ in self._positions]

    @property
    def keys(self) -> list[str]:
        """Name of each image."""
        return list(self._keys)

    def images(self) -> Crops:
        """The images."""
        return Crops(list(self._positions))


def text_of(entry: Any, name: str, where: str) -> str:
    """A text of an entry.

    Raises:
        DataError: naming the place, when the entry does not have it.
    """
    value = entry.get(name) if isinstance(entry, Mapping) else None
    if not isinstance(value, str):
        raise DataError(f"{where}: has no text {name!r}; got {str(entry)[:120]}")
    return value


def integer_of(entry: Mapping[str, Any], name: str, where: str) -> int:
    """A whole number of an entry, which the file may write as 12.0; raises as :func:`text_of`."""
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise DataError(f"{where}: has no whole number {name!r}; got {value!r}.")
    return int(value)


def require_images(paths: Iterable[Path], *, source: Path, what: str) -> None:
    """Raise MissingDataError, saying what to do, unless at least one of the images is there.

    Args:
        paths: Of all images of one source.
        source: The file that names them.
        what: Which images these are and where they come from.
    """
    every = list(paths)
    if every and not any(path.is_file() for path in every):
        raise MissingDataError(
            f"{source}: none of its {len(every)} images is there, such as {every[0]}; put {what} there, or give the "
            "folder by an override."
        )
