"""The numbers of an audit in words: which parts of a geometry work, and which are idle."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["good", "note", "bad"]
Status: TypeAlias = Literal["works", "partly", "idle", "collapsed", "no curvature", "not finite"]

#: Below this median u the space is almost flat: distances differ by about 1 % from flat ones.
FLAT_U = 0.5
#: Shares in percent above which cones count as saturated, or as inactive (pairs almost always outside).
MANY = 90.0
#: Share in percent of half spaces above which the typical cone is one.
MOST = 50.0
#: Quantile in percent of the shuffled values above which pairs count as ordered, not only their modalities.
ORDERED = 97.5
#: Effective rank in percent of its maximum, below which embeddings count as collapsed.
COLLAPSED = 2.0


@dataclass(frozen=True)
class Finding:
    """One sentence, with its numbers, about one part: it works (good), is worth knowing (note), does not work (bad).

    The part is one of ``curvature``, ``cones``, ``order``, ``gap``, ``rank``, ``clipping`` and ``ranking``; ``numbers``
    where some are not finite.
    """

    part: str
    level: Level
    text: str


@dataclass(frozen=True)
class Verdict:
    """All findings in a fixed order, and one word for them.

    ``works`` (curvature, cones and order all do), ``partly``, ``idle`` (none does), ``collapsed``, or ``no curvature``
    for a sphere or a flat space without cones; ``not finite`` where a number is NaN or infinite.
    """

    status: Status
    findings: tuple[Finding, ...]

    @property
    def text(self) -> str:
        """One paragraph."""
        return " ".join(finding.text for finding in self.findings)


def interpret(numbers: Mapping[str, float]) -> Verdict:
    """Put the numbers of an audit into words.

    Args:
        numbers: Names of :func:`hypvl.diagnostics.audit.summary`, shares in percent, and those that the evaluator adds
            (``flat_distortion``, ``effective_rank_<modality>_share``, ``flat_top1_agreement``); no
            finding is made about numbers that are absent.

    Example:
        >>> interpret({"radial_order_auc": float("nan")}).status
        'not finite'
    """
    if broken := [name for name, value in numbers.items() if not math.isfinite(value)]:
        more = f" and {len(broken) - 1} more numbers are" if len(broken) > 1 else " is"
        text = f"Not finite: {broken[0]}{more} NaN or infinite; the embeddings have diverged."
        return Verdict("not finite", (Finding("numbers", "bad", text),))
    findings = [
        finding
        for check in (_curvature, _cones, _order, _gap, _rank, _clipping, _ranking)
        if (finding := check(numbers)) is not None
    ]
    return Verdict(_status(findings), tuple(findings))


def idle_geometry(numbers: Mapping[str, float]) -> str | None:
    """Why a geometry does nothing, as a few words; None while its curvature or its cones still do something.

    The collapse that users of MERU report: the curvature falls to the floor of its range, or the space is almost flat,
    and at the same time most cones are half spaces, which cannot widen and which hardly a pair breaks (entailment near
    zero), or nearly all pairs lie outside. Contrastive terms still learn then, as in flat space.

    Args:
        numbers: As :func:`interpret`.

    Example:
        >>> numbers = {"curv": 0.1, "curv_at_floor": 100.0, "cone_violation_rate": 0.0}
        >>> idle_geometry({**numbers, "saturated_cones_text": 100.0})
        'curvature at its floor, cones saturated'
    """
    n = numbers
    if "curv" not in n or "cone_violation_rate" not in n or not all(map(math.isfinite, n.values())):
        return None
    if n.get("curv_at_floor", 0.0) > MANY:
        curvature = "curvature at its floor"
    elif max(n["text_radius_q50"], n["image_radius_q50"]) < FLAT_U:
        curvature = "space almost flat"
    else:
        return None
    if n["saturated_cones_text"] > MOST:
        return f"{curvature}, cones saturated"
    return f"{curvature}, cones inactive" if n["cone_violation_rate"] > MANY else None


def _status(findings: list[Finding]) -> Status:
    levels = {finding.part: finding.level for finding in findings}
    if levels.get("rank") == "bad":
        return "collapsed"
    parts = [levels[part] for part in ("curvature", "cones", "order") if part in levels]
    if "curvature" not in levels and "cones" not in levels:
        return "no curvature"
    if all(level == "good" for level in parts):
        return "works"
    return "idle" if all(level == "bad" for level in parts) else "partly"


def _curvature(n: Mapping[str, float]) -> Finding | None:
    if "curv" not in n or "text_radius_q50" not in n:
        return None
    u_text, u_image = n["text_radius_q50"], n["image_radius_q50"]
    where = f"median u = {u_text:.3g} for texts and {u_image:.3g} for images at c = {n['curv']:.3g}"
    if n.get("curv_at_bound", 0.0) > 0.0:
        where += f" ({n['curv_at_bound']:.0f}% of curvatures at the limit of their range)"
    bent = (
        f"; distances differ from flat ones by {n['flat_distortion']:.1f}%" if "flat_distortion" in n else ""
    )
    if max(u_text, u_image) < FLAT_U:
        return Finding("curvature", "bad", f"Almost flat: {where}{bent}.")
    return Finding("curvature", "good", f"Curved: {where}{bent}.")


def _cones(n: Mapping[str, float]) -> Finding | None:
    if "cone_violation_rate" not in n:
        return None
    own, other = n["cone_violation_rate"], n.get("cone_violation_rate_shuffled", 100.0)
    saturated = n["saturated_cones_text"]
    rates = f"{own:.0f}% of pairs break them, {other:.0f}% of shuffled ones"
    if saturated > MANY:
        return Finding(
            "cones", "bad", f"Cones saturated: {saturated:.0f}% of texts hold a half space; {rates}."
        )
    if own > MANY:
        return Finding("cones", "bad", f"Cones inactive: {rates}.")
    if other - own < 5.0:
        return Finding("cones", "bad", f"Cones do not tell pairs from shuffled ones: {rates}.")
    level: Level = "note" if saturated > MOST else "good"
    return Finding(
        "cones", level, f"Cones tell pairs from shuffled ones: {rates}; {saturated:.0f}% are half spaces."
    )


def _order(n: Mapping[str, float]) -> Finding | None:
    if "radial_order_auc" not in n:
        return None
    auc, null, quantile = (n[f"radial_order_{name}"] for name in ("auc", "auc_null", "auc_null_quantile"))
    centre = "root" if "curv" in n or "cone_violation_rate" in n else "centre"  # a sphere has no root
    text = f"texts lie nearer the {centre} than their image in {auc:.0f}% of pairs, {null:.0f}% when shuffled"
    if quantile >= ORDERED and auc > 50.0:
        return Finding("order", "good", f"Pairs are ordered: {text}.")
    if auc > 75.0:
        return Finding("order", "note", f"Modalities are ordered, pairs are not: {text}.")
    return Finding("order", "bad", f"No radial order: {text}.")


def _gap(n: Mapping[str, float]) -> Finding | None:
    if "relative_modality_gap" not in n:
        return None
    gap = n["relative_modality_gap"]
    text = f"Relative modality gap {gap:.2f} (0.5 = pairs are as far apart as two items of one modality)."
    return Finding("gap", "note" if gap > 0.5 else "good", text)


def _rank(n: Mapping[str, float]) -> Finding | None:
    shares = {m: n[key] for m in ("image", "text") if (key := f"effective_rank_{m}_share") in n}
    if not shares:
        return None
    modality = min(shares, key=lambda m: shares[m])
    filled = n[f"effective_rank_{modality}"]
    text = f"{modality}s fill {filled:.1f} directions, {shares[modality]:.0f}% of what they could"
    if shares[modality] < COLLAPSED:
        return Finding("rank", "bad", f"Collapsed: {text}.")
    return Finding("rank", "good", f"No collapse: {text}.")


def _clipping(n: Mapping[str, float]) -> Finding | None:
    worst = max(n.get("clipped_image", 0.0), n.get("clipped_text", 0.0))
    if worst == 0.0:
        return None
    return Finding(
        "clipping", "bad", f"Clipped: up to {worst:.1f}% of radii lie at the edge of the exponential map."
    )


def _ranking(n: Mapping[str, float]) -> Finding | None:
    if "flat_top1_agreement" not in n or "curv" not in n:
        return None
    same = n["flat_top1_agreement"]
    return Finding(
        "ranking",
        "note",
        f"Flat distances in the tangent space choose the same caption for {same:.0f}% of images as the model.",
    )
