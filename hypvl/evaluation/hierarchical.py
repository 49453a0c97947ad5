"""Hierarchical metrics of zero-shot classification: how far from the truth a wrong class lies in an is-a graph."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hypvl.errors import DataError
from hypvl.evaluation.datasets.images import FileImages
from hypvl.evaluation.features import Encoding
from hypvl.evaluation.metrics import hierarchy
from hypvl.evaluation.protocol import (
    ClassificationSet,
    EvaluableModel,
    EvaluationResult,
    Evaluator,
    Tokenizer,
)
from hypvl.evaluation.zero_shot import ZeroShotClassification


class HierarchicalClassification(Evaluator):
    """Zero-shot predictions, judged by their place in a hierarchy of the classes.

    Metrics: the means over the pictures of :func:`hypvl.evaluation.metrics.hierarchy.pair_metrics` (``tie``, edges, is
    the main one; the lower, the better), each with ``_chance``, its mean over a uniformly drawn class, and
    ``top1_accuracy`` in percent. Unreadable pictures are left out of the hierarchy's means and wrong for the accuracy.

    Items, one per picture: those of :class:`~hypvl.evaluation.zero_shot.ZeroShotClassification`, and ``tie``.

    Args:
        dataset: Labelled pictures.
        tree: JSON, ``{node: {"parents": [node, ...]}}``, the first parent being the main one.
        nodes: Node of each class by class name; None = the class names are nodes.
        prompts: As for zero-shot classification.
        encoding: Batches, workers, precision.
        tokenizer: In place of hypvl's own, with the model's context length.

    Raises:
        DataError: when the file cannot be read as a hierarchy, or lacks a class.

    Source: HyCoCLIP (Pal et al. 2025, arXiv 2410.06912), table 4.
    """

    main_metric = "tie"

    def __init__(
        self,
        dataset: ClassificationSet,
        tree: str | Path,
        *,
        nodes: Mapping[str, str] | None = None,
        prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        encoding: Encoding | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.graph = read_is_a(tree)
        self.classification = ZeroShotClassification(dataset, prompts, encoding=encoding, tokenizer=tokenizer)
        self.nodes = [str(name if nodes is None else nodes[name]) for name in dataset.classes]
        if missing := [node for node in self.nodes if node not in self.graph]:
            raise DataError(f"{tree}: lacks the class {missing[0]!r}; expected a node for each class.")

    def __call__(self, model: EvaluableModel) -> EvaluationResult:
        """Classify and measure."""
        result = self.classification(model)
        labels, predicted = result.items["label"], result.items["predicted"]
        judged = [
            (self.nodes[guess], self.nodes[label])
            for guess, label in zip(predicted, labels, strict=True)
            if guess is not None
        ]
        found = hierarchy.mean_metrics(self.graph, *map(list, zip(*judged, strict=True)))
        chance = {truth: self._chance(truth) for truth in {truth for _, truth in judged}}
        scores: dict[str, float] = {}
        for name, value in found.items():
            scores[name] = value
            scores[f"{name}_chance"] = sum(chance[truth][name] for _, truth in judged) / len(judged)
        for name in ("top1_accuracy", "top1_accuracy_chance"):
            scores[name] = result.metrics[name]
        ties = [
            None if guess is None
            else hierarchy.pair_metrics(self.graph, self.nodes[guess], self.nodes[label])["tie"]
            for guess, label in zip(predicted, labels, strict=True)
        ]  # fmt: skip
        return EvaluationResult(
            metrics=scores,
            items={**result.items, "tie": ties},
            meta={**result.meta, "main_metric": self.main_metric},
        )

    def _chance(self, truth: str) -> dict[str, float]:
        return hierarchy.mean_metrics(self.graph, self.nodes, [truth] * len(self.nodes))


def read_is_a(path: str | Path) -> hierarchy.IsA:
    """A hierarchy from JSON ``{node: {"parents": [node, ...]}}``.

    Raises:
        DataError: when the file is missing, built differently, or the relation has a circle.
    """
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text())
        return hierarchy.IsA({node: list(entry["parents"]) for node, entry in content.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f'{path}: cannot be read as a hierarchy ({error}); expected {{node: {{"parents": [nodes]}}}}.'
        ) from error


class DemoObjects:
    """The demo's one-object test scenes, labelled with colour and shape together ("a red circle").

    Args:
        root: What scripts/make_demo_data.py wrote.

    Raises:
        DataError: when it is missing or built differently.
    """

    def __init__(self, root: str | Path = "./datasets/demo") -> None:
        path = Path(root) / "eval" / "hierarchy.json"
        try:
            scenes = [
                s for s in json.loads(path.read_text())["scenes"] if str(s["kind"]).startswith("single")
            ]
            self.keys: Sequence[str] = [Path(s["image"]).stem for s in scenes]
            self._images = FileImages([path.parent / s["image"] for s in scenes])
            names = [str(s["chain"][2]) for s in scenes]  # level 3: colour and shape
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{path}: cannot be read as scenes ({error}); make it with scripts/make_demo_data.py."
            ) from error
        self.classes: Sequence[str] = sorted(set(names))
        self.prompts = {name: [f"this is {name}", f"{name} on paper"] for name in self.classes}
        self.labels: Sequence[int] = [self.classes.index(name) for name in names]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 (3, h, w), label); raises DataError for a picture that cannot be read."""
        return self._images[index], self.labels[index]
