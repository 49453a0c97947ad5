"""What evaluators ask of a data set: image sources, classification sets and retrieval sets, as protocols."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from hypvl.checks import missing_members
from hypvl.errors import DataError


class ImageSource(Protocol):
    """Images by position, read when asked for.

    A source may also have ``ids``: where each image is, ``<path>`` or ``<path>::<part of it>``. A store of embeddings
    (:mod:`hypvl.embedding.store`) then knows the images without reading them again, so that an image must be as its
    file shows it. A classification set may have ``ids`` too.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w); raises :class:`DataError` for an image that cannot be read."""


class ClassificationSet(Protocol):
    """Labelled images."""

    @property
    def classes(self) -> Sequence[str]: ...  # name of each class, as prompts say it
    @property
    def prompts(self) -> Sequence[str] | Mapping[str, Sequence[str]] | None:
        """Templates with ``{}`` (or ``{c}``), or the full prompts by class name; None = the set has none of its own."""

    @property
    def keys(self) -> Sequence[str]: ...  # a name for each image, for the per-item results
    @property
    def labels(self) -> Sequence[int]: ...  # right class of each image, known even where it cannot be read

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 (3, h, w), label); raises :class:`DataError` for an image that cannot be read."""


class RetrievalSet(Protocol):
    """Images and their captions."""

    @property
    def images(self) -> ImageSource: ...  # the gallery, read when asked for
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def caption_image(self) -> Sequence[int]: ...  # for each caption, the position of its image
    @property
    def keys(self) -> Sequence[str]: ...  # a name for each image


def check_set(value: Any, protocol: type, *, name: str = "dataset") -> None:
    """Refuse a data set that lacks what an evaluator needs, before the evaluation starts.

    Args:
        value: The data set.
        protocol: One of this module's protocols of data sets, or another one.
        name: Name of the argument, for the message.

    Raises:
        DataError: listing what is missing, or what does not fit together.
    """
    if missing := missing_members(value, protocol):
        members = ", ".join(missing_members(None, protocol))
        raise DataError(
            f"{name}: a {type(value).__name__} has no {', '.join(missing)}; a {protocol.__name__} has {members} (see "
            f"{protocol.__module__}, and hypvl docs add_a_dataset for data sets of your own)."
        )
    if protocol is ClassificationSet:
        _check_counts(value, name, "images", len(value), "keys", "labels")
    elif protocol is RetrievalSet:
        images = len(value.images)
        _check_counts(value, name, "images", images, "keys")
        _check_counts(value, name, "captions", len(value.captions), "caption_image")
        wrong = next((i for i in value.caption_image if not 0 <= i < images), None)
        if wrong is not None:
            raise DataError(
                f"{name}: has {wrong} in caption_image; expected positions 0 … {images - 1} of images."
            )


def _check_counts(value: object, name: str, what: str, count: int, *parts: str) -> None:
    for part in parts:
        length = len(getattr(value, part))
        if length != count:
            raise DataError(f"{name}: has {length} {part} for {count} {what}; expected one each.")
