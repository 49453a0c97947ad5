"""What papers claim, and whether it holds for the runs that are there."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.claims.runs import GEOMETRY, KNN, RUNS, ZERO_SHOT, Results, Runs, read


@dataclass(frozen=True)
class Claim:
    """A difference that a paper says is positive.

    Attributes:
        text: What is claimed.
        runs: Which runs it compares.
        measure: The figure from the results of one seed.
        least: What it must exceed.
        figures: Further figures to show, by name.
    """

    text: str
    runs: tuple[str, ...]
    measure: Callable[[Runs], float]
    least: float
    figures: Mapping[str, Callable[[Runs], float]]


def recall(results: Results, evaluation: str = "scenes_retrieval") -> float:
    """Mean of Recall@1 both ways, percent."""
    found = results[evaluation]
    return (found["text_to_image_recall@1"] + found["image_to_text_recall@1"]) / 2


def accuracy(results: Results, evaluations: Sequence[str] = ZERO_SHOT) -> float:
    """Mean accuracy of digits and shapes, zero-shot or by k-NN, percent."""
    return statistics.mean(results[name]["top1_accuracy"] for name in evaluations)


def trained(results: Results) -> float:
    """Trained parameters, in thousands."""
    return results["parameters"]["trained"] / 1000


def _of(run: str, evaluation: str, metric: str) -> Callable[[Runs], float]:
    return lambda runs: runs[run][evaluation][metric]


CLAIMS: dict[str, Claim] = {
    "a": Claim(
        "CE-CLIP's terms raise accuracy on hard negatives over plain CLIP (points)",
        ("plain", "ceclip"),
        lambda r: r["ceclip"]["scenes_choices"]["accuracy"] - r["plain"]["scenes_choices"]["accuracy"],
        0.0,
        {
            "plain CLIP": _of("plain", "scenes_choices", "accuracy"),
            "CE-CLIP": _of("ceclip", "scenes_choices", "accuracy"),
        },
    ),
    "b": Claim(
        "I0T_post brings the centroid gap below 0.05 of its start (0.05 - ratio)",
        ("clip",),
        lambda r: (
            0.05
            - r["clip"]["scenes_gap/standardized"]["centroid_distance"]
            / r["clip"]["scenes_gap"]["centroid_distance"]
        ),
        0.0,
        {
            "gap before": _of("clip", "scenes_gap", "centroid_distance"),
            "gap after": _of("clip", "scenes_gap/standardized", "centroid_distance"),
        },
    ),
    "b2": Claim(
        "I0T_post keeps retrieval within 1 point (1 - points lost in mean Recall@1)",
        ("clip",),
        lambda r: 1.0 - (recall(r["clip"]) - recall(r["clip"], "scenes_retrieval/standardized")),
        0.0,
        {
            "before": lambda r: recall(r["clip"]),
            "after": lambda r: recall(r["clip"], "scenes_retrieval/standardized"),
        },
    ),
    "c": Claim(
        "MERU puts texts nearer the root than their images, CLIP does not (share of pairs, points)",
        ("meru", "clip"),
        lambda r: (
            r["meru"]["scenes_radii"]["text_nearer_root_share"]
            - max(50.0, r["clip"]["scenes_radii"]["text_nearer_root_share"])
        ),
        0.0,
        {
            "MERU": _of("meru", "scenes_radii", "text_nearer_root_share"),
            "CLIP": _of("clip", "scenes_radii", "text_nearer_root_share"),
        },
    ),
    "d": Claim(
        "HyCoCLIP errs less far in the is-a tree than MERU (TIE, edges saved)",
        ("meru", "hycoclip"),
        lambda r: r["meru"]["scenes_hierarchy"]["tie"] - r["hycoclip"]["scenes_hierarchy"]["tie"],
        0.0,
        {
            "MERU": _of("meru", "scenes_hierarchy", "tie"),
            "HyCoCLIP": _of("hycoclip", "scenes_hierarchy", "tie"),
        },
    ),
    "e": Claim(
        "ATMG keeps a larger relative modality gap than MERU",
        ("meru", "atmg"),
        lambda r: (
            r["atmg"]["scenes_gap"]["relative_modality_gap"]
            - r["meru"]["scenes_gap"]["relative_modality_gap"]
        ),
        0.0,
        {
            "MERU": _of("meru", "scenes_gap", "relative_modality_gap"),
            "ATMG": _of("atmg", "scenes_gap", "relative_modality_gap"),
        },
    ),
    "e2": Claim(
        "ATMG's retrieval is comparable with MERU's (5 - points lost in mean Recall@1)",
        ("meru", "atmg"),
        lambda r: 5.0 - (recall(r["meru"]) - recall(r["atmg"])),
        0.0,
        {"MERU": lambda r: recall(r["meru"]), "ATMG": lambda r: recall(r["atmg"])},
    ),
    "f": Claim(
        "SEED: a student of at most a quarter of the teacher's size keeps 80 % of its zero-shot accuracy (share - 80)",
        ("clip", "seed"),
        lambda r: 100 * accuracy(r["seed"]) / accuracy(r["clip"]) - 80,
        0.0,
        {
            "teacher": lambda r: accuracy(r["clip"]),
            "student": lambda r: accuracy(r["seed"]),
            "image encoder, %": lambda r: (
                100 * r["seed"]["parameters"]["image_encoder"] / r["clip"]["parameters"]["image_encoder"]
            ),
        },
    ),
    "f2": Claim(
        "SEED: the same by k-NN (share - 80)",
        ("clip", "seed", "student"),
        lambda r: 100 * accuracy(r["seed"], KNN) / accuracy(r["clip"], KNN) - 80,
        0.0,
        {
            "teacher": lambda r: accuracy(r["clip"], KNN),
            "student": lambda r: accuracy(r["seed"], KNN),
            "untrained": lambda r: accuracy(r["student"], KNN),
        },
    ),
    "f3": Claim(
        "SimReg: the same by k-NN (share - 80)",
        ("clip", "simreg", "student"),
        lambda r: 100 * accuracy(r["simreg"], KNN) / accuracy(r["clip"], KNN) - 80,
        0.0,
        {
            "teacher": lambda r: accuracy(r["clip"], KNN),
            "student": lambda r: accuracy(r["simreg"], KNN),
            "untrained": lambda r: accuracy(r["student"], KNN),
        },
    ),
    "g": Claim(
        "ProtoCLIP raises zero-shot accuracy over CLIP (points)",
        ("clip", "protoclip"),
        lambda r: accuracy(r["protoclip"]) - accuracy(r["clip"]),
        0.0,
        {"CLIP": lambda r: accuracy(r["clip"]), "ProtoCLIP": lambda r: accuracy(r["protoclip"])},
    ),
    "g2": Claim(
        "ProtoCLIP raises k-NN accuracy over CLIP (points)",
        ("clip", "protoclip"),
        lambda r: accuracy(r["protoclip"], KNN) - accuracy(r["clip"], KNN),
        0.0,
        {"CLIP": lambda r: accuracy(r["clip"], KNN), "ProtoCLIP": lambda r: accuracy(r["protoclip"], KNN)},
    ),
    "g3": Claim(
        "ProtoCLIP raises mean Recall@1 over CLIP (points)",
        ("clip", "protoclip"),
        lambda r: recall(r["protoclip"]) - recall(r["clip"]),
        0.0,
        {"CLIP": lambda r: recall(r["clip"]), "ProtoCLIP": lambda r: recall(r["protoclip"])},
    ),
    "h": Claim(
        "LoRA loses at most 5 points of zero-shot accuracy to full fine-tuning (5 - points lost)",
        ("full", "lora"),
        lambda r: 5.0 - (accuracy(r["full"]) - accuracy(r["lora"])),
        0.0,
        {
            "full": lambda r: accuracy(r["full"]),
            "LoRA": lambda r: accuracy(r["lora"]),
            "trained, thousands: full": lambda r: trained(r["full"]),
            "LoRA's": lambda r: trained(r["lora"]),
        },
    ),
    "h2": Claim(
        "LoRA loses at most 5 points of mean Recall@1 to full fine-tuning (5 - points lost)",
        ("full", "lora"),
        lambda r: 5.0 - (recall(r["full"]) - recall(r["lora"])),
        0.0,
        {"full": lambda r: recall(r["full"]), "LoRA": lambda r: recall(r["lora"])},
    ),
    "i": Claim(
        "DINO learns digits without labels and texts (points of k-NN accuracy over its untrained encoder)",
        ("dino", "undino"),
        lambda r: accuracy(r["dino"], KNN[:1]) - accuracy(r["undino"], KNN[:1]),
        0.0,
        {
            "untrained": lambda r: accuracy(r["undino"], KNN[:1]),
            "DINO": lambda r: accuracy(r["dino"], KNN[:1]),
            "shapes, untrained": lambda r: accuracy(r["undino"], KNN[1:]),
            "shapes, DINO": lambda r: accuracy(r["dino"], KNN[1:]),
        },
    ),
}


def judge(values: Sequence[float], least: float) -> str:
    """Whether a claim holds: "yes", "no", or with one value "seen" / "not seen"."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return "seen" if mean > least else "not seen"
    return "yes" if mean - least > 2 * statistics.stdev(values) else "no"


def rows(folder: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One entry per claim whose runs are there for at least one seed."""
    found = []
    for key, claim in CLAIMS.items():
        per_seed = [{run: read(run, seed, folder) for run in claim.runs} for seed in seeds]
        complete: list[Runs] = [
            {k: v for k, v in runs.items() if v is not None}
            for runs in per_seed
            if all(v is not None for v in runs.values())
        ]
        if not complete:
            continue
        values = [claim.measure(runs) for runs in complete]
        found.append({
            "claim": key, "text": claim.text, "seeds": len(values), "mean": statistics.mean(values),
            "spread": statistics.stdev(values) if len(values) > 1 else None,
            "holds": judge(values, claim.least),
            "figures": {n: statistics.mean(f(runs) for runs in complete) for n, f in claim.figures.items()},
        })  # fmt: skip
    return found


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = ["| | claim | mean | spread | seeds | holds | figures |", "|---|---|---:|---:|---:|---|---|"]
    for entry in entries:
        spread = "-" if entry["spread"] is None else f"{entry['spread']:.3g}"
        figures = ", ".join(f"{name} {value:.3g}" for name, value in entry["figures"].items())
        lines.append(
            f"| {entry['claim']} | {entry['text']} | {entry['mean']:.3g} | {spread} | {entry['seeds']} | "
            f"{entry['holds']} | {figures} |"
        )
    return "\n".join(lines)


# Columns of the table that compares runs: name -> the figure of one of them, None for what its geometry has not
COLUMNS: dict[str, Callable[[Results], float | None]] = {
    "shape, zero-shot": lambda results: accuracy(results, ZERO_SHOT[1:]),
    "mean Recall@1": recall,
    "TIE": lambda results: results["scenes_hierarchy"]["tie"],
    "hard negatives": lambda results: results["scenes_choices"]["accuracy"],
    "text nearer root": lambda results: results["scenes_radii"]["text_nearer_root_share"],
    "traversals in order": lambda results: results["scenes_traversals"]["hierarchy_share"],
    "radial order": lambda results: results["scenes_geometry"]["radial_order_auc"],
    "shuffled": lambda results: results["scenes_geometry"]["radial_order_auc_null"],
    "saturated cones of texts": lambda results: results["scenes_geometry"].get("saturated_cones_text"),
    "of images": lambda results: results["scenes_geometry"].get("saturated_cones_image"),
}


def compared(folder: Path, seeds: Sequence[int]) -> str:
    """Markdown: the columns of the runs with all of them that are there, mean and standard deviation over the seeds."""
    lines = [f"| recipe | seeds | {' | '.join(COLUMNS)} |", f"|---|---:|{'---:|' * len(COLUMNS)}"]
    for name, run in RUNS.items():
        if not set(GEOMETRY) <= set(run.evaluations):
            continue
        found = [results for seed in seeds if (results := read(name, seed, folder)) is not None]
        if not found:
            continue
        cells = []
        for figure in COLUMNS.values():
            values = [value for results in found if (value := figure(results)) is not None]
            if not values:
                cells.append("-")
                continue
            spread = f" \u00b1 {statistics.stdev(values):.2g}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3g}{spread}")
        lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)
