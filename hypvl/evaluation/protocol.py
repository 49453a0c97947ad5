"""What an evaluator knows: a model by these methods, a data set by these attributes, and what it gives back."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from torch import Tensor, nn

from hypvl.checks import missing_members
from hypvl.errors import DataError
from hypvl.geometry.base import Geometry

Modality: TypeAlias = Literal["image", "text"]
Stage: TypeAlias = Literal["trunk", "features", "embeddings"]


class EvaluableModel(Protocol):
    """A model as evaluation sees it; every recipe of hypvl is one, and so may be anything else."""

    geometry: Geometry
    image_size: int
    context_length: int
    training: bool

    def encode_image(self, images: Tensor, stage: Stage = "embeddings") -> Tensor:
        """uint8 (B, 3, H, W) -> (B, width) for the trunk, (B, D) for features and embeddings."""

    def encode_text(self, tokens: Tensor, stage: Stage = "embeddings") -> Tensor:
        """int64 (B, L) padded with 0 -> (B, width) for the trunk, (B, D) for features and embeddings."""

    def scores(
        self, query: Tensor, key: Tensor, *, query_modality: Modality, key_modality: Modality
    ) -> Tensor:
        """Embeddings (Q, D), (K, D) -> (Q, K); higher = closer."""

    def class_scores(self, image_embeddings: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
        """Images (Q, D) and the prompt features of C classes, C times (P_c, D) -> (Q, C)."""

    def pool(self, features: Tensor, *, modality: Modality) -> Tensor:
        """Features of several views of one thing, (..., P, D) -> one embedding (..., D)."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Where they are is where the inputs go."""

    def train(self, mode: bool = True) -> Any:
        """Switch dropout and the like on or off, as ``nn.Module.train``."""


class Tokenizer(Protocol):
    """Texts -> int64 (B, L), padded with 0."""

    def __call__(self, texts: Sequence[str]) -> Tensor: ...


class ImageSource(Protocol):
    """Images by position, read when asked for.

    One whose images are as their files show them may also have ``ids``, a sequence that says where each is:
    ``<path>``, or ``<path>::<what in it>``. With a store of embeddings these images need not be read again
    (:mod:`hypvl.embedding.store`). A classification set may have the same.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w); raises :class:`DataError` for an image that cannot be read."""


class ClassificationSet(Protocol):
    """Labelled images.

    Attributes:
        classes: Name of each class, as prompts say it.
        prompts: Templates with ``{}`` (or ``{c}``), or the full prompts of each class by class name;
            None = the set has none of its own.
        keys: A name for each image, for the per-item results.
        labels: Right class of each image, known even where the image cannot be read.
    """

    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def prompts(self) -> Sequence[str] | Mapping[str, Sequence[str]] | None: ...
    @property
    def keys(self) -> Sequence[str]: ...
    @property
    def labels(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 (3, h, w), label); raises :class:`DataError` for an image that cannot be read."""


class RetrievalSet(Protocol):
    """Images and their captions.

    Attributes:
        images: The gallery, read when asked for.
        captions: All captions.
        caption_image: For each caption, the position of its image in ``images``.
        keys: A name for each image.
    """

    @property
    def images(self) -> ImageSource: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def caption_image(self) -> Sequence[int]: ...
    @property
    def keys(self) -> Sequence[str]: ...


def check_set(value: Any, protocol: type, *, name: str = "dataset") -> None:
    """Refuse a data set that does not have what an evaluator will ask for, before it asks.

    Args:
        value: What came.
        protocol: One of this module's protocols of data sets, or another one.
        name: Of the argument, for the message.

    Raises:
        DataError: listing what is missing, or what does not fit together.
    """
    if missing := missing_members(value, protocol):
        members = ", ".join(missing_members(None, protocol))
        raise DataError(
            f"{name}: a {type(value).__name__} has no {', '.join(missing)}; a {protocol.__name__} has {members} (see "
            f"{protocol.__module__}, and docs/evaluation_data.md for sets of your own)."
        )
    if protocol is ClassificationSet:
        _check_counts(value, name, len(value), "images", ("keys", "labels"))
    elif protocol is RetrievalSet:
        images = len(value.images)
        _check_counts(value, name, images, "images", ("keys",))
        _check_counts(value, name, len(value.captions), "captions", ("caption_image",))
        wrong = next((i for i in value.caption_image if not 0 <= i < images), None)
        if wrong is not None:
            raise DataError(
                f"{name}: has {wrong} in caption_image; expected positions 0 … {images - 1} of images."
            )


def _check_counts(value: object, name: str, count: int, what: str, parts: Sequence[str]) -> None:
    for part in parts:
        found = len(getattr(value, part))
        if found != count:
            raise DataError(f"{name}: has {found} {part} for {count} {what}; expected one each.")


class MissingDataError(DataError):
    """A data set is not where it was looked for: not evaluated, which is not the same as a score of 0."""


@dataclass
class EvaluationResult:
    """What an evaluator found out.

    Attributes:
        metrics: Name -> value; shares are percent. A metric with a chance level has it beside it, as
            ``<name>_chance``.
        items: Per-item results, lists of one length per group (see the evaluator); JSON-serialisable.
        meta: What the numbers are about: sizes, settings, unreadable images.
        samples: For metrics that are a mean over items, the value of each item on the metric's own scale (a hit
            is 100.0 where the metric is in percent), so that their mean is the metric: what its bootstrap
            interval is drawn from.
        strata: For those of them that are the plain mean of the means of groups (classes, kinds, folds), the group
            of each item: the interval is drawn within them.
    """

    metrics: dict[str, float]
    items: dict[str, list[Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    strata: dict[str, list[Any]] = field(default_factory=dict)


class Evaluator(ABC):
    """One measurement of a model on one data set."""

    #: The metric to look at first.
    main_metric: str

    @abstractmethod
    def __call__(self, model: EvaluableModel) -> EvaluationResult:
        """Measure. The model is left as it was: same mode, same parameters, no gradients."""
