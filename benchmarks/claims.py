"""Claims of the papers in miniature, on the demo data: python -m benchmarks.claims [--seeds 0,1,2] [--only clip,meru]

Each run is `scripts/train.py` on a demo recipe, cut to the same number of steps for all, and `scripts/evaluate.py`
after it. A finished run is not done again, an interrupted one goes on; `--report` only reads what is there. A claim
holds when its mean difference over the seeds exceeds twice their standard deviation (with one seed there is none, and
the claim is only "seen"). Prints a Markdown table and one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.common import report

ROOT = Path(__file__).resolve().parents[1]
# What the claims are about; the demo's suite has more.
EVALUATIONS = ("scenes_retrieval", "scenes_radii", "scenes_gap", "scenes_hierarchy", "scenes_choices")
STANDARDIZED = ("scenes_retrieval", "scenes_gap")
Results: TypeAlias = Mapping[str, Mapping[str, float]]  # evaluation -> metric -> value
Runs: TypeAlias = Mapping[str, Results]  # run -> its results

# run -> (recipe, overrides); "plain" sees the captions of CE-CLIP and has none of its terms
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "clip": ("clip", ()),
    "meru": ("meru", ()),
    "atmg": ("atmg", ()),
    "hycoclip": ("hycoclip", ()),
    "ceclip": ("ceclip", ()),
    "plain": ("clip", ("+dataset.mapper.negatives=true",)),
}
# Terms whose weight warms up in the demo recipe (between a third and two thirds of its steps), here likewise
WARM: dict[str, tuple[str, ...]] = {
    "meru": ("entailment",),
    "hycoclip": (
        "text_image_entailment",
        "box_text_image_entailment",
        "cross_image_entailment",
        "cross_text_entailment",
    ),
}


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
}


def train_and_evaluate(run: str, seed: int, folder: Path, *, steps: int) -> None:
    """One run, unless it is there: training, evaluation, and for CLIP both again without the modality means."""
    recipe, overrides = RUNS[run]
    here = folder / f"{run}_{seed}"
    warmup = min(100, steps // 9)
    settings = [
        f"train.seed={seed}", f"train.num_iterations={steps}", f"optim.lr_scheduler.warmup_steps={warmup}",
        *(f"train.objective.warmup.{term}=[{steps // 3},{2 * steps // 3}]" for term in WARM.get(run, ())),
        *overrides,
    ]  # fmt: skip
    final = here / "checkpoint_final.pth"
    if not final.is_file():
        _call(
            here,
            ["scripts/train.py", "--config", f"configs/train_{recipe}_demo.py", "--num-gpus", "0"],
            ["--output-dir", str(here), "--resume", *settings],
        )
    evaluate = ["scripts/evaluate.py", "--config", "configs/eval_demo.py", "--checkpoint-path", str(final)]
    if _results(here / "results.json", EVALUATIONS) is None:
        _call(here, evaluate, ["--only", ",".join(EVALUATIONS), "--output", str(here / "results.json")])
    if run == "clip" and _results(here / "standardized.json", STANDARDIZED) is None:
        only = ["--only", ",".join(STANDARDIZED), "--standardize", "transductive"]
        _call(here, evaluate, [*only, "--output", str(here / "standardized.json")])


def _call(folder: Path, command: Sequence[str], more: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    with (folder / "commands.log").open("a") as log:
        log.write(f"$ {' '.join([*command, *more])}\n")
        log.flush()
        subprocess.run(
            [sys.executable, *command, *more], cwd=ROOT, env=environment, stdout=log, stderr=log, check=True
        )


def read(run: str, seed: int, folder: Path) -> dict[str, dict[str, float]] | None:
    """Evaluation -> metrics of a finished run; those without the means are called ``<evaluation>/standardized``."""
    here = folder / f"{run}_{seed}"
    found = _results(here / "results.json", EVALUATIONS)
    if found is None or run != "clip":
        return found
    without = _results(here / "standardized.json", STANDARDIZED)
    return without and found | {f"{name}/standardized": metrics for name, metrics in without.items()}


def _results(path: Path, names: Sequence[str]) -> dict[str, dict[str, float]] | None:
    """Evaluation -> metrics of a results file, None until all of these evaluations are done."""
    if not path.is_file():
        return None
    entries: dict[str, Any] = json.loads(path.read_text())["results"]
    done = {name: entry["metrics"] for name, entry in entries.items() if entry["status"] == "ok"}
    return done if set(names) <= set(done) else None


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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2", help="seeds, with commas (default: 0,1,2)")
    parser.add_argument("--quick", action="store_true", help="the first seed only")
    parser.add_argument("--only", default=",".join(RUNS), help=f"runs, with commas, of {', '.join(RUNS)}")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of each run (default: 600)")
    parser.add_argument("--output-dir", type=Path, default=ROOT / "output" / "claims", metavar="DIR")
    parser.add_argument("--report", action="store_true", help="train nothing, read what is there")
    args = parser.parse_args(argv)
    seeds = [int(seed) for seed in args.seeds.split(",")][: 1 if args.quick else None]
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(RUNS):
        parser.error(f"--only: {', '.join(sorted(unknown))} unknown; expected some of {', '.join(RUNS)}")
    folder = args.output_dir / f"steps_{args.steps}"
    started = time.monotonic()
    if not args.report:
        if not (ROOT / "datasets" / "demo" / "stamp.json").is_file():
            _call(folder, ["scripts/make_demo_data.py"], ["--output-dir", "datasets/demo"])
        for seed in seeds:
            for run in chosen:
                train_and_evaluate(run, seed, folder, steps=args.steps)
                print(f"{time.monotonic() - started:7.0f} s  {run}, seed {seed}", file=sys.stderr, flush=True)
    found = rows(folder, seeds)
    print(table(found))
    report("claims", {"steps": args.steps, "claims": found, "seconds": time.monotonic() - started})


if __name__ == "__main__":
    main()
