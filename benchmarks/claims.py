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
from typing import Any, NamedTuple, TypeAlias

from benchmarks.common import report
from hypvl.models.checkpoint_io import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
Results: TypeAlias = Mapping[str, Mapping[str, float]]  # evaluation -> metric -> value
Runs: TypeAlias = Mapping[str, Results]  # run -> its results

# What is measured of a run: evaluations of configs/eval_demo.py ...
SCENES = ("scenes_retrieval", "scenes_radii", "scenes_gap", "scenes_hierarchy", "scenes_choices")
ZERO_SHOT = ("digits", "scenes_shape_seen")
STANDARDIZED = ("scenes_retrieval", "scenes_gap")  # ... again without the modality means
KNN = ("digits_knn", "scenes_shape_seen_knn")  # ... and of configs/eval_knn_demo.py
WITHOUT = "/standardized"
FINAL, PARAMETERS = "checkpoint_final.pth", "parameters.json"  # files of a run


@dataclass(frozen=True)
class Run:
    """A recipe, cut to the steps of all.

    Attributes:
        recipe: ``configs/train_<recipe>_demo.py``.
        overrides: ``{start}`` stands for the last checkpoint of the run ``start`` with the same seed.
        start: The run, listed before this one, whose checkpoint it needs.
        evaluations: What is measured of it.
        steps: False = one step with rate 0: the weights as they were drawn.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    start: str | None = None
    evaluations: tuple[str, ...] = SCENES
    steps: bool = True


_FROM_CLIP = ("train.init_checkpoint={start}",)
_STUDENT = (*_FROM_CLIP, "model.visual.width=56")  # with the recipe's 64 it is a little more than a quarter
# "plain" sees the captions of CE-CLIP and has none of its terms
RUNS: dict[str, Run] = {
    "clip": Run("clip", evaluations=(*SCENES, *ZERO_SHOT, *(s + WITHOUT for s in STANDARDIZED), *KNN)),
    "meru": Run("meru"),
    "atmg": Run("atmg"),
    "hycoclip": Run("hycoclip"),
    "ceclip": Run("ceclip"),
    "plain": Run("clip", ("+dataset.mapper.negatives=true",)),
    "seed": Run("distill_seed", _STUDENT, "clip", (*ZERO_SHOT, *KNN)),
    "simreg": Run("distill_simreg", _STUDENT, "clip", KNN),
    "student": Run("distill_simreg", _STUDENT, "clip", KNN, steps=False),
    "protoclip": Run("protoclip", evaluations=("scenes_retrieval", *ZERO_SHOT, *KNN)),
    "full": Run("meru_from_clip", _FROM_CLIP, "clip", ("scenes_retrieval", *ZERO_SHOT)),
    "lora": Run("meru_from_clip_lora", _FROM_CLIP, "clip", ("scenes_retrieval", *ZERO_SHOT)),
    "dino": Run("dino", evaluations=KNN),
    "undino": Run("dino", evaluations=KNN, steps=False),
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
            "size of the student's image encoder, % of the teacher's": lambda r: (
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
            "trained parameters, thousands: full": lambda r: trained(r["full"]),
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


def settings(name: str, seed: int, folder: Path, *, steps: int) -> list[str]:
    """Overrides of the recipe of a run."""
    run = RUNS[name]
    start = "" if run.start is None else str(folder / f"{run.start}_{seed}" / FINAL)
    count, warmup, rate = (steps, min(100, steps // 9), []) if run.steps else (1, 0, ["optim.optimizer.lr=0"])
    return [
        f"train.seed={seed}", f"train.num_iterations={count}", f"optim.lr_scheduler.warmup_steps={warmup}", *rate,
        *(f"train.objective.warmup.{term}=[{steps // 3},{2 * steps // 3}]" for term in WARM.get(name, ())),
        *(text.format(start=start) for text in run.overrides),
    ]  # fmt: skip


class Suite(NamedTuple):
    """A call of scripts/evaluate.py: its config, results file, flags and evaluations."""

    config: str
    file: str
    flags: tuple[str, ...]
    names: tuple[str, ...]


def suites(run: Run) -> list[Suite]:
    """What is measured of a run."""
    plain = tuple(name for name in run.evaluations if name in (*SCENES, *ZERO_SHOT))
    without = tuple(name.removesuffix(WITHOUT) for name in run.evaluations if name.endswith(WITHOUT))
    knn = tuple(name for name in run.evaluations if name in KNN)
    every = [
        Suite("eval_demo", "results.json", (), plain),
        Suite("eval_demo", "standardized.json", ("--standardize", "transductive"), without),
        Suite("eval_knn_demo", "knn.json", (), knn),
    ]
    return [suite for suite in every if suite.names]


def train_and_evaluate(name: str, seed: int, folder: Path, *, steps: int) -> None:
    """Train and evaluate one run, as far as that is not done."""
    run, here = RUNS[name], folder / f"{name}_{seed}"
    final = here / FINAL
    if not final.is_file():
        config = f"configs/train_{run.recipe}_demo.py"
        command = [
            "scripts/train.py",
            "--config",
            config,
            "--num-gpus",
            "0",
            "--output-dir",
            str(here),
            "--resume",
        ]
        _call(here, [*command, *settings(name, seed, folder, steps=steps)])
    if not (here / PARAMETERS).is_file():
        (here / PARAMETERS).write_text(json.dumps(count_parameters(final)))
    for suite in suites(run):
        if _results(here / suite.file, suite.names) is None:
            command = [
                "scripts/evaluate.py",
                "--config",
                f"configs/{suite.config}.py",
                "--checkpoint-path",
                str(final),
            ]
            only = ["--only", ",".join(suite.names), *suite.flags, "--output", str(here / suite.file)]
            _call(here, [*command, *only])


def count_parameters(checkpoint: Path) -> dict[str, int]:
    """Parameters that were trained, and those of the image encoder without its head, of a checkpoint."""
    state = load_checkpoint(checkpoint)
    names = [name for name in state["optimizer_parameters"] if name.startswith("model.")]
    return {
        "trained": sum(state["model"][name.removeprefix("model.")].numel() for name in names),
        "image_encoder": sum(
            value.numel() for name, value in state["model"].items() if name.startswith("visual.")
        ),
    }


def _call(folder: Path, command: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    with (folder / "commands.log").open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log, check=True
        )


def read(name: str, seed: int, folder: Path) -> dict[str, dict[str, float]] | None:
    """Evaluation -> metrics of a finished run; those without the means are called ``<evaluation>/standardized``."""
    here = folder / f"{name}_{seed}"
    if not (here / PARAMETERS).is_file():
        return None
    found = {"parameters": json.loads((here / PARAMETERS).read_text())}
    for suite in suites(RUNS[name]):
        results = _results(here / suite.file, suite.names)
        if results is None:
            return None
        end = WITHOUT if suite.flags else ""
        found |= {f"{evaluation}{end}": metrics for evaluation, metrics in results.items()}
    return found


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
            _call(folder, ["scripts/make_demo_data.py", "--output-dir", "datasets/demo"])
        for seed in seeds:
            for run in chosen:
                train_and_evaluate(run, seed, folder, steps=args.steps)
                print(f"{time.monotonic() - started:7.0f} s  {run}, seed {seed}", file=sys.stderr, flush=True)
    found = rows(folder, seeds)
    print(table(found))
    report("claims", {"steps": args.steps, "claims": found, "seconds": time.monotonic() - started})


if __name__ == "__main__":
    main()
