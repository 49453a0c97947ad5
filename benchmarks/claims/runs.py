"""The runs that claims compare: a demo recipe each, trained and evaluated once."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from hypvl.config import LazyConfig
from hypvl.models.checkpoint_io import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
Results: TypeAlias = Mapping[str, Mapping[str, float]]  # evaluation -> metric -> value
Runs: TypeAlias = Mapping[str, Results]  # run -> its results

# What is measured of a run: evaluations of configs/eval_demo.py ...
SCENES = ("scenes_retrieval", "scenes_radii", "scenes_gap", "scenes_hierarchy", "scenes_choices")
ZERO_SHOT = ("digits", "scenes_shape_seen")
STANDARDIZED = ("scenes_retrieval", "scenes_gap")  # ... again without the modality means
GEOMETRY = ("scenes_geometry", "scenes_traversals")
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


_COMPARED = (*SCENES, *ZERO_SHOT, *GEOMETRY)
# What train_hycoclip_demo.py sees and contrasts, for a CLIP
_BOXES = (
    "+dataset.mapper.boxes=one",
    "dataset.mapper.level_weights=[0.0,0.06,0.47,0.47]",
    "+dataset.mapper.box_level_weights=[0.06,0.56,0.38,0.0]",
    "train.objective.terms.contrastive.pairs="
    "[[image,text],[text,image],['image:box_image',text],['text:box_text',image]]",
)
_FROM_CLIP = ("train.init_checkpoint={start}",)
_STUDENT = (*_FROM_CLIP, "model.visual.width=56")  # with the recipe's 64 it is a little more than a quarter
# "clip_boxes" sees the boxes of HyCoCLIP, "plain" the captions of CE-CLIP; neither has more than CLIP's term
RUNS: dict[str, Run] = {
    "clip": Run("clip", evaluations=(*_COMPARED, *(s + WITHOUT for s in STANDARDIZED), *KNN)),
    "clip_boxes": Run("clip", _BOXES, evaluations=_COMPARED),
    "meru": Run("meru", evaluations=_COMPARED),
    "atmg": Run("atmg"),
    "hycoclip": Run("hycoclip", evaluations=_COMPARED),
    "uncha": Run("uncha", evaluations=_COMPARED),
    "phyclip": Run("phyclip", evaluations=_COMPARED),
    "hyper3clip": Run("hyper3clip", evaluations=_COMPARED),
    "argent": Run("argent", evaluations=_COMPARED),
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


def settings(name: str, seed: int, folder: Path, *, steps: int) -> list[str]:
    """Overrides of the recipe of a run.

    Terms whose weight warms up in the recipe do so between a third and two thirds of these steps; ProtoCLIP's keeps its
    own, the first episode.
    """
    run = RUNS[name]
    objective = LazyConfig.load(ROOT / f"configs/train_{run.recipe}_demo.py").train.objective
    warm = [term for term in objective.get("warmup") or {} if "episode" not in objective.terms[term]]
    start = "" if run.start is None else str(folder / f"{run.start}_{seed}" / FINAL)
    count, warmup, rate = (steps, min(100, steps // 9), []) if run.steps else (1, 0, ["optim.optimizer.lr=0"])
    return [
        f"train.seed={seed}", f"train.num_iterations={count}", f"optim.lr_scheduler.warmup_steps={warmup}", *rate,
        *(f"train.objective.warmup.{term}=[{steps // 3},{2 * steps // 3}]" for term in warm),
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
    plain = tuple(name for name in run.evaluations if name in (*SCENES, *ZERO_SHOT, *GEOMETRY))
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
        call(here, [*command, *settings(name, seed, folder, steps=steps)])
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
            call(here, [*command, *only])


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


def call(folder: Path, command: Sequence[str]) -> None:
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
