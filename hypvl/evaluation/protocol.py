"""What an evaluator asks of a model, and what it returns."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from torch import Tensor, nn

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
