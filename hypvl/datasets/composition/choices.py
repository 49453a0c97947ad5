"""What the readers return: images with true and false captions, captions with true and false images, and groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypvl.datasets.files import require_images
from hypvl.datasets.images import Box, Images
from hypvl.datasets.protocol import ImageSource


@dataclass(frozen=True)
class Choice:
    """A true and some false captions of one image."""

    image: int  # position in the set's ``images``
    caption: str  # the true one
    foils: tuple[str, ...]  # the false ones, at least one
    kind: str  # the category that the choice counts in ("attribute", "swap_obj", ...)
    foil_kinds: tuple[str, ...] = ()  # the kind of each foil, where they differ; else empty

    def __post_init__(self) -> None:
        if isinstance(self.foils, str) or not self.foils or len(self.foil_kinds) not in (0, len(self.foils)):
            raise ValueError(
                f"foils, foil_kinds: got {self.foils!r} and {self.foil_kinds!r}; expected a tuple of at least one "
                "text, and a kind for each or none."
            )


@dataclass(frozen=True)
class Choices:
    """Images with true and false captions."""

    images: ImageSource  # read when asked for
    choices: Sequence[Choice]
    keys: Sequence[str]  # a name for each image
    # Published averages: metric (with ``accuracy`` in its name) -> the kinds of whose accuracies it is the plain mean.
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)  # facts about the set for the result


@dataclass(frozen=True)
class JointChoices(Choices):
    """Choices of which some are right only together, such as those of an image and its counterpart."""

    joint: Mapping[str, Sequence[Sequence[int]]] = field(
        default_factory=dict
    )  # metric -> positions of such choices


@dataclass(frozen=True)
class CaptionQuery:
    """A caption, its image, and images that it is false of."""

    caption: str
    image: int  # position of its own in the set's ``images``
    others: tuple[int, ...]  # of the false ones, at least one
    kind: str  # the category that it counts in

    def __post_init__(self) -> None:
        if not self.others:
            raise ValueError(
                f"others: got none for {self.caption[:40]!r}; expected at least one false image."
            )


@dataclass(frozen=True)
class CaptionQueries:
    """Captions with true and false images."""

    images: ImageSource  # read when asked for
    queries: Sequence[CaptionQuery]
    keys: Sequence[str]  # a name for each image
    # As of Choices.
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """A caption and some images, one or more of which it belongs to."""

    caption: str
    images: tuple[int, ...]  # of the candidates, positions in the set's ``images``
    right: tuple[bool, ...]  # whether the caption belongs to each, at least to one
    kind: str  # the category that it counts in

    def __post_init__(self) -> None:
        if len(self.images) != len(self.right) or not any(self.right):
            raise ValueError(
                f"images, right: got {len(self.images)} images and {self.right} for {self.caption[:40]!r}; expected a "
                "mark for each, at least one of them true."
            )


@dataclass(frozen=True)
class Selections:
    """Captions with images to select from."""

    images: ImageSource  # read when asked for
    selections: Sequence[Selection]
    keys: Sequence[str]  # a name for each image
    meta: Mapping[str, Any] = field(default_factory=dict)  # facts about the set for the result


@dataclass(frozen=True)
class Group:
    """Two images and their captions."""

    images: tuple[int, int]  # positions in the set's ``images``
    captions: tuple[str, str]  # of each
    kinds: tuple[str, ...]  # the categories that the group counts in, possibly none
    key: str  # its name


@dataclass(frozen=True)
class Groups:
    """Groups of two images and two captions."""

    images: ImageSource  # read when asked for
    groups: Sequence[Group]
    meta: Mapping[str, Any] = field(default_factory=dict)  # facts about the set for the result


@dataclass(frozen=True)
class Paraphrase:
    """Two true captions of an image that say the same in other words, and a false one."""

    image: int  # position in the set's ``images``
    captions: tuple[str, str]  # the true ones
    foil: str  # the false one
    kind: str  # the category that it counts in


@dataclass(frozen=True)
class Paraphrases:
    """Images with two true captions and a false one each."""

    images: ImageSource  # read when asked for
    paraphrases: Sequence[Paraphrase]
    keys: Sequence[str]  # a name for each image
    meta: Mapping[str, Any] = field(default_factory=dict)  # facts about the set for the result


class ImageCollector:
    """Collects the images of a set, each once, however often its files name them."""

    def __init__(self) -> None:
        self._positions: dict[tuple[Path, Box | None], int] = {}
        self._unchecked: dict[Path, None] = {}
        self.keys: list[str] = []  # a name for each image

    def add(self, path: Path, *, key: str, box: Box | None = None) -> int:
        """The position of an image, or of a part of one, in :attr:`images`."""
        self._unchecked[path] = None
        if (path, box) not in self._positions:
            self._positions[path, box] = len(self.keys)
            self.keys.append(key)
        return self._positions[path, box]

    def require(self, *, source: Path, what: str) -> None:
        """Raise MissingDataError unless one of the images that were added since the last call is there.

        ``source`` is the file that names them, ``what`` says which images these are and where they come from.
        """
        require_images(self._unchecked, source=source, what=what)
        self._unchecked = {}

    @property
    def images(self) -> Images:
        """All that were added."""
        paths, boxes = zip(*self._positions, strict=True) if self._positions else ((), ())
        files = Images.from_files(paths)
        return Images(files, boxes=boxes) if any(boxes) else files
