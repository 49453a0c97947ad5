"""Retrieval with further right pairs, as in ECCV Caption: several images for a text, texts of other images for one."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from hypvl.datasets.protocol import RetrievalSet
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.metrics import ranking


class FurtherPositives(Protocol):
    """Right items of some queries, by the ids of the data set (``image_ids``, ``caption_ids``)."""

    @property
    def image_to_text(self) -> Mapping[str, Collection[str]]: ...  # image id -> ids of its right captions
    @property
    def text_to_image(self) -> Mapping[str, Collection[str]]: ...  # caption id -> ids of its right images
    @property
    def source(self) -> str: ...  # file or publication, for messages and results


def right_positions(
    dataset: RetrievalSet, positives: FurtherPositives
) -> dict[str, dict[int, frozenset[int]]]:
    """``text_to_image`` and ``image_to_text``: position of a query -> positions of its right items.

    A right item outside the gallery gets a negative number: it cannot be retrieved, but counts as right.

    Raises:
        DataError: when the data set has no ids, or a query is not in it.
    """
    positions: dict[str, dict[str, int]] = {}
    for modality in ("image", "caption"):
        ids: Sequence[str] | None = getattr(dataset, f"{modality}_ids", None)
        if ids is None:
            raise DataError(
                f"{positives.source}: names {modality}s by ids, but the data set has no {modality}_ids; use one with "
                "them, such as COCO's."
            )
        positions[modality] = {key: position for position, key in enumerate(ids)}
    directions = {
        "text_to_image": (positives.text_to_image, "caption", "image"),
        "image_to_text": (positives.image_to_text, "image", "caption"),
    }
    result: dict[str, dict[int, frozenset[int]]] = {}
    for direction, (right, query, key) in directions.items():
        missing = [name for name in right if name not in positions[query]]
        if missing:
            raise DataError(
                f"{positives.source}: {len(missing)} of its {len(right)} {query}s, such as {missing[0]}, are not in "
                "the data set; evaluate the split it was made for (COCO, Karpathy's test split, all captions)."
            )
        result[direction] = {
            positions[query][name]: frozenset(
                positions[key].get(item, -1 - number) for number, item in enumerate(sorted(items))
            )
            for name, items in right.items()
        }
    return result


def add_positive_metrics(
    result: EvaluationResult,
    direction: str,
    retrieved: Mapping[int, Sequence[int]],
    right: Mapping[int, frozenset[int]],
    *,
    gallery: int,
    ks: Sequence[int],
) -> None:
    """Add ``<direction>_positive_recall@K``, ``<direction>_r_precision`` and ``<direction>_map@r`` with their chance.

    Positions of a query's items: ``retrieved``, best first, at least as many as it has right items, none for a query
    that is absent; ``right``, negative outside the gallery of ``gallery`` items.
    """
    pairs = [(retrieved.get(query, ()), items) for query, items in right.items()]
    ranks = ranking.first_hit_ranks([ranked for ranked, _ in pairs], list(right.values()))
    counts = [(len(items), sum(item >= 0 for item in items)) for items in right.values()]

    def add(name: str, values: list[float], chances: list[float]) -> None:
        result.add_mean(f"{direction}_{name}", values, chance=sum(chances) / len(chances))

    for k in ks:
        chances = [ranking.recall_chance([here], gallery, ks=[k])[k] if here else 0.0 for _, here in counts]
        add(f"positive_recall@{k}", ranking.hits_at(ranks, k), chances)
    add(
        "r_precision",
        [ranking.r_precision(ranked, items) for ranked, items in pairs],
        [ranking.r_precision_chance(r, gallery, in_gallery=here) for r, here in counts],
    )
    add(
        "map@r",
        [ranking.average_precision_at_r(ranked, items) for ranked, items in pairs],
        [ranking.average_precision_at_r_chance(r, gallery, in_gallery=here) for r, here in counts],
    )
