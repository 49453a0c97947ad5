"""What every evaluator is: a data set, a few settings, and one method that measures.

The pattern (see :mod:`hypvl.evaluation.retrieval` and :mod:`hypvl.evaluation.zero_shot`)::

    @dataclass
    class Foo(Evaluator):
        '''What is measured, metrics with their units, items. Args: the fields below.'''

        dataset: RetrievalSet
        _: KW_ONLY
        limit: int | None = None

        main_metric = "foo_recall@1"

        def __post_init__(self) -> None:              # checks only; derived values get a leading underscore
            check_set(self.dataset, RetrievalSet)

        def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
            texts = encoder.encode_texts(self.dataset.captions, label="captions")
            images = encoder.encode_images(self.dataset.images, transform=Squeeze.of(model))
            result = EvaluationResult({}, items=items, meta={"images": len(self.dataset.images)})
            result.add_mean("foo_recall@1", hits, chance=100.0 / len(self.dataset.images))
            return result

``encoding`` and ``tokenizer`` are arguments of every evaluator and stand in this base class alone, as do the entries
that every ``meta`` holds. An evaluator never sees the store of embeddings: the encoder has it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypvl.embedding.encode import CachedEncoder, Encoding
from hypvl.embedding.protocol import EvaluableModel, Tokenizer
from hypvl.embedding.store import EmbeddingStore

_REASONS = 10  # how many unreadable images are named


@dataclass(frozen=True)
class EvaluationContext:
    """How a run evaluates; what an evaluator was built with comes first."""

    encoding: Encoding | None = None  # batches, workers, precision, progress bars; None = the defaults
    tokenizer: Tokenizer | None = None  # of texts; None = the model's own
    # What is there is taken; in write mode what is encoded is added. None = all is encoded.
    store: EmbeddingStore | None = None


@dataclass
class EvaluationResult:
    """What an evaluator measured."""

    # Name -> value; shares are percent. The chance level of a metric that has one is beside it, as ``<name>_chance``.
    metrics: dict[str, float] = field(default_factory=dict)
    # Per-item results, lists of one length per group (see the evaluator); JSON-serialisable.
    items: dict[str, list[Any]] = field(default_factory=dict)
    # What the numbers are about: sizes, settings, unreadable images.
    meta: dict[str, Any] = field(default_factory=dict)
    # For metrics that are a mean over items, the value of each item on the metric's own scale (a hit is 100.0 where
    # it is in percent), so that their mean is the metric: what its bootstrap interval is drawn from.
    samples: dict[str, list[float]] = field(default_factory=dict)
    # For those that are the plain mean of the means of groups (classes, kinds, folds), the group of each item: the
    # interval is drawn within them.
    strata: dict[str, list[Any]] = field(default_factory=dict)

    def add_mean(self, name: str, *groups: Sequence[float], chance: float | None = None) -> None:
        """Add a metric that is a mean over items, or the plain mean of the means of several groups.

        Its samples, and of several groups the strata, come with it, so that it gets an interval.

        Args:
            groups: The value of each item, on the metric's own scale; one sequence per group (a fold, a kind).
            chance: Its chance level, on the same scale; None = it has none.

        Raises:
            ValueError: without groups, or for one without items.
        """
        if not groups or not all(map(len, groups)):
            raise ValueError(
                f"{name}: got {[len(group) for group in groups]} items; expected at least one per group."
            )
        self.metrics[name] = math.fsum(math.fsum(group) / len(group) for group in groups) / len(groups)
        if chance is not None:
            self.metrics[f"{name}_chance"] = chance
        self.samples[name] = [value for group in groups for value in group]
        if len(groups) > 1:
            self.strata[name] = [number for number, group in enumerate(groups) for _ in group]


@dataclass(kw_only=True)
class Evaluator(ABC):
    """One measurement of a model on one data set. A setting outside its range is a ValueError at construction."""

    main_metric: str = field(init=False)  # the metric to look at first
    encoding: Encoding | None = None  # None = that of the context
    tokenizer: Tokenizer | None = None  # likewise, of the texts where it encodes any

    def __call__(self, model: EvaluableModel, context: EvaluationContext | None = None) -> EvaluationResult:
        """Measure. The model is left as it was: same mode, same parameters, no gradients.

        The meta of the result says, beside what the evaluator itself puts there, ``unreadable`` (how many images could
        not be read), ``unreadable_first`` (why, of the first ten), ``main_metric``, and where images were encoded
        ``image_transforms``.
        """
        context = EvaluationContext() if context is None else context
        encoder = CachedEncoder(
            model,
            encoding=context.encoding if self.encoding is None else self.encoding,
            tokenizer=context.tokenizer if self.tokenizer is None else self.tokenizer,
            store=context.store,
        )
        result = self.measure(model, encoder)
        of_every_evaluator: dict[str, Any] = {
            "unreadable": len(encoder.unreadable),
            "unreadable_first": [reason for _, reason in encoder.unreadable[:_REASONS]],
            "main_metric": self.main_metric,
        }
        if encoder.transforms:
            of_every_evaluator["image_transforms"] = encoder.transforms
        result.meta = {**of_every_evaluator, **result.meta}
        return result

    @abstractmethod
    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        """Metrics, items and meta of a model, whose images and texts the encoder encodes."""
