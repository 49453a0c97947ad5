"""Hierarchical metrics of zero-shot classification: distance of a prediction from the truth in an is-a graph."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.hierarchy.is_a import read_is_a, read_words
from hypvl.datasets.protocol import ClassificationSet
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.zero_shot import ZeroShotClassification
from hypvl.metrics import hierarchy


@configurable("evaluate")
@dataclass
class HierarchicalClassification(Evaluator):
    """Zero-shot classification, measured by distances in a hierarchy of the classes.

    Metrics: the means over the images of :func:`hypvl.metrics.hierarchy.metrics_to` (``tie``, edges, is
    the main one; lower is better), each with ``_chance``, its mean over a uniformly drawn class, and ``top1_accuracy``
    in percent. Unreadable images are left out of the hierarchy's means and are wrong for the accuracy.

    Items, one per image: those of :class:`~hypvl.evaluation.zero_shot.ZeroShotClassification`, ``label_node``,
    ``predicted_node``, and ``tie``.

    Args:
        tree: A file of :func:`hypvl.datasets.hierarchy.is_a.read_is_a`: JSON, or WordNet pairs.
        nodes: Node of each class, in the order of the classes or by class name; None = the class names are nodes.
        words: File of lines ``<node> <name>`` (``words.txt``), for names of nodes in the items; None = no names.
        prompts: As for zero-shot classification.

    Raises:
        MissingDataError: when the tree is not there.
        DataError: when the file cannot be read as a hierarchy, lacks a class, or does not connect the classes.

    Source: HyCoCLIP (Pal et al. 2025, arXiv 2410.06912), table 4.
    """

    dataset: ClassificationSet
    tree: str | Path
    _: KW_ONLY
    nodes: Mapping[str, str] | Sequence[str] | None = None
    words: str | Path | None = None
    prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None

    main_metric = "tie"

    def __post_init__(self) -> None:
        self._graph = read_is_a(self.tree)
        self._words = {} if self.words is None else read_words(self.words)
        self._zero_shot = ZeroShotClassification(self.dataset, self.prompts, metric="mean_per_class")
        self._nodes = _nodes(self.dataset.classes, self.nodes, folders=getattr(self.dataset, "folders", None))
        if missing := [node for node in self._nodes if node not in self._graph]:
            raise DataError(f"{self.tree}: lacks the class {missing[0]!r}; expected a node for each class.")
        self._neighbours = self._graph.neighbours_between(self._nodes)
        reached = hierarchy.distances(self._neighbours, self._nodes[0])
        if apart := [node for node in self._nodes if node not in reached]:
            raise DataError(
                f"{self.tree}: has no path between the classes {self._nodes[0]!r} and {apart[0]!r}; connect them by a "
                "root."
            )

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        zero_shot = self._zero_shot.measure(model, encoder)
        labels, predicted = zero_shot.items["label"], zero_shot.items["predicted"]
        tables = {
            label: hierarchy.metrics_to(
                self._graph, self._nodes[label], self._nodes, neighbours=self._neighbours
            )
            for label in sorted(set(labels))
        }
        classified = [
            (guess, label) for guess, label in zip(predicted, labels, strict=True) if guess is not None
        ]
        result = EvaluationResult(
            items={
                **zero_shot.items,
                "label_node": [self._called(label) for label in labels],
                "predicted_node": [None if guess is None else self._called(guess) for guess in predicted],
                "tie": [
                    None if guess is None else tables[label]["tie"][guess]
                    for guess, label in zip(predicted, labels, strict=True)
                ],
            },
            meta={**zero_shot.meta, "nodes": len(self._graph.parents)},
        )
        for name in hierarchy.NAMES:
            mean_class = {label: sum(table[name]) / len(self._nodes) for label, table in tables.items()}
            result.add_mean(
                name,
                [tables[label][name][guess] for guess, label in classified],
                chance=sum(mean_class[label] for _, label in classified) / len(classified),
            )
        result.add_mean(
            "top1_accuracy",
            zero_shot.samples["top1_accuracy"],
            chance=zero_shot.metrics["top1_accuracy_chance"],
        )
        return result

    def _called(self, label: int) -> str:
        node = self._nodes[label]
        return f"{node} {self._words[node]}" if node in self._words else node


def _nodes(
    classes: Sequence[str], nodes: Mapping[str, str] | Sequence[str] | None, *, folders: Sequence[str] | None
) -> list[str]:
    if nodes is None:
        return [str(name) for name in classes]
    if isinstance(nodes, Mapping):
        if missing := [name for name in classes if name not in nodes]:
            raise DataError(
                f"nodes: has no entry for the class {missing[0]!r}; expected a node for each class."
            )
        return [str(nodes[name]) for name in classes]
    if len(nodes) != len(classes):
        raise DataError(f"nodes: got {len(nodes)}; expected {len(classes)}, one per class, in their order.")
    # Nodes that are names of class folders (WordNet ids) must be in the order of the folders.
    if folders is not None and set(folders) & set(nodes):
        for folder, node in zip(folders, nodes, strict=True):
            if folder != node:
                raise DataError(
                    f"nodes: got {node!r} for the class folder {folder!r}; expected the folder's own node, from the "
                    "same folder as the data set."
                )
    return [str(node) for node in nodes]
