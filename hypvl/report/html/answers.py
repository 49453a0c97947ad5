"""The three questions of a page, each answered in one sentence with its numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Level: TypeAlias = Literal["good", "note", "bad"]
CURVED, ABOVE, FAILING = "Is the geometry curved?", "Is text above image?", "Which queries fail?"


@dataclass(frozen=True)
class Answer:
    """One heading and the sentence under it."""

    question: str
    level: Level
    short: str  # one or two words
    text: str

    def __str__(self) -> str:
        return f"{self.question} {self.text}"


def answers(model: Mapping[str, Any]) -> list[Answer]:
    """The answers for the content of ``report_data.json``."""
    return [_curved(model), _above(model), _failing(model)]


def _curved(model: Mapping[str, Any]) -> Answer:
    n, geometry = model["audit"]["metrics"], model["geometry"]
    if geometry["factors"] == 0:
        kind = "in a flat space" if geometry["root"] else "on a sphere, where lengths mean nothing"
        return Answer(
            CURVED,
            "note",
            "No curvature",
            f"The model has no hyperbolic geometry: its embeddings lie {kind}.",
        )
    u = max(n["text_radius_q50"], n["image_radius_q50"])
    bent = f"distances differ from flat ones by {n['flat_distortion']:.1f}% on average"
    where = (
        f"the median embedding lies at u = {n['text_radius_q50']:.2f} (texts) and {n['image_radius_q50']:.2f} (images) "
        f"at c = {n['curv']:.3g}"
    )
    if n.get("curv_at_floor", 0.0) > 50.0:
        return Answer(
            CURVED, "bad", "At the floor", f"Hardly: the curvature has fallen to its floor; {where}, {bent}."
        )
    if u < 0.5:
        return Answer(
            CURVED, "bad", "Almost flat", f"Hardly: {where}, and {bent}; below u = 0.5 a flat space would do."
        )
    return Answer(CURVED, "good", "Curved", f"Yes: {where}, and {bent}.")


def _above(model: Mapping[str, Any]) -> Answer:
    n, geometry = model["audit"]["metrics"], model["geometry"]
    auc, null = n["radial_order_auc"], n["radial_order_auc_null"]
    where = "the root" if geometry["root"] else "the mean embedding"
    shares = f"texts lie nearer {where} than their image in {auc:.1f}% of pairs"
    if not geometry["root"]:
        return Answer(
            ABOVE, "note", "No root", f"The space has no root to be near: {shares} ({null:.1f}% shuffled)."
        )
    if n["radial_order_auc_null_quantile"] >= 97.5 and auc > 50.0:
        return Answer(
            ABOVE, "good", "Yes, pair by pair", f"Yes: {shares}, more than the {null:.1f}% of shuffled pairs."
        )
    if auc > 75.0:
        return Answer(
            ABOVE, "note", "Yes, as a group",
            f"As a group: {shares}, but shuffled pairs give {null:.1f}% too, so the order says which modality an item "
            "is of, not which text belongs above which image.",
        )  # fmt: skip
    return Answer(ABOVE, "bad", "No", f"No: {shares}; shuffled pairs give {null:.1f}%.")


def _failing(model: Mapping[str, Any]) -> Answer:
    way = model["retrieval"]["text_to_image"]
    queries, right = way["queries"], way["right"]
    failed = queries - right
    share = 100.0 * failed / queries
    text = (
        f"{failed} of {queries} texts ({share:.1f}%) do not find their image first; "
        f"{way['within_5'] - right} of them have it among the best 5"
    )
    words = [row for row in model["retrieval"]["words"] if row["low"] > failed / queries]
    if words:
        named = [
            f"“{row['word']}” ({100 * row['failed'] / row['queries']:.0f}% of {row['queries']})"
            for row in words
        ]
        text += f"; those with {_joined(named[:3])} fail more often than the rest"
    elif failed:
        text += "; no word of the captions fails more often than the rest"
    level: Level = "good" if share < 25.0 else "note" if share < 75.0 else "bad"
    return Answer(FAILING, level, f"{share:.0f}% fail", f"{text}.")


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
