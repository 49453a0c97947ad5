"""`make eval-smoke`: every suite of configs/eval_*.py, on miniatures of all layouts, for a CLIP, a MERU and an ATMG.

The miniatures (tests/evaluation/miniatures/) have the folder and file names of the real data sets and a few items
each; the models have the architecture of the demo and random weights. What is asked: that each evaluation of each
suite ends with finite numbers for every geometry. Prints one line per suite and model; exits with 1 when an
evaluation has no result.
"""

import argparse
import contextlib
import importlib
import io
import json
import math
import os
import pkgutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from hypvl.cli.evaluate import main as evaluate
from hypvl.config import LazyConfig, instantiate
from hypvl.data.demo.build import DemoArguments, make_demo_data
from tests.evaluation import miniatures

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("clip", "meru", "atmg")
# Instead of the 80,000 prompts of ImageNet's 1,000 classes.
FEW_PROMPTS = ["a photo of a {}.", "a drawing of a {}."]
# A part of suites that do the same on many sets: each evaluator, and each main metric, once. test_miniatures.py reads
# the data of all.
ONLY = {
    "datacomp": "imagenet1k,vtab/pets,wilds/fmow,wilds/iwildcam,dollar_street,misc/winogavil,"
    "retrieval/flickr_1k_test_image_text_retrieval",
    "prompt_sensitivity": "dtd,clevr",
}


def suites() -> list[str]:
    """Names of the suites: ``zero_shot_retrieval`` for configs/eval_zero_shot_retrieval.py."""
    return sorted(path.stem.removeprefix("eval_") for path in (ROOT / "configs").glob("eval_*.py"))


def recipes() -> list[str]:
    """Names of the demo's recipes: ``meru`` for configs/train_meru_demo.py."""
    return sorted(path.stem[6:-5] for path in (ROOT / "configs").glob("train_*_demo.py"))


def make_miniatures(root: Path) -> None:
    """All of them below ``root / "datasets"``, where the suites' default roots expect them, seen from ``root``."""
    for entry in pkgutil.iter_modules(miniatures.__path__):
        module = importlib.import_module(f"{miniatures.__name__}.{entry.name}")
        if not hasattr(module, "make"):
            raise SystemExit(f"{module.__file__}: has no make(root); write one that puts the set below root.")
        module.make(root / "datasets")
    make_demo_data(root / "datasets" / "demo", DemoArguments(num_train=16, num_test=8))


def make_checkpoint(name: str, folder: Path) -> Path:
    """A checkpoint of a demo recipe with random weights."""
    config = LazyConfig.load(ROOT / "configs" / f"train_{name}_demo.py")
    torch.manual_seed(0)
    state = instantiate(config.model).state_dict()
    path = folder / f"{name}.pth"
    content = {"format_version": 1, "model": state, "iteration": 0, "config": LazyConfig.to_yaml(config)}
    torch.save(content, path)
    return path


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """With ``folder`` as the working directory, which is what default roots are relative to."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def few_prompts(config: Any) -> list[str]:
    """Overrides of a suite that give ImageNet's 1,000 classes few prompts."""
    target = str(config.evaluate.get("imagenet", {}).get("_target_"))
    if target.endswith((".ZeroShotClassification", ".HierarchicalClassification")):
        return [f"++evaluate.imagenet.prompts={json.dumps(FEW_PROMPTS)}"]
    return []


def run_suite(suite: str, checkpoint: Path, output: Path) -> dict[str, dict[str, Any]]:
    """Evaluation -> its entry of the results file, from the command as a user types it; see the working directory."""
    command = ["--config", str(ROOT / "configs" / f"eval_{suite}.py"), "--checkpoint-path", str(checkpoint)]
    more = [
        "--output-dir",
        str(output),
        "--device",
        "cpu",
        "--num-workers",
        "0",
        "--batch-size",
        "8",
        "--no-download",
    ]
    config = LazyConfig.load(ROOT / "configs" / f"eval_{suite}.py")
    more += few_prompts(config)
    if suite in ONLY:
        more += ["--only", ONLY[suite]]
    if "epochs" in config:  # of fine-tuning
        more.append("epochs.final=2")
    if "folds" in config:  # of cross-validation: miniatures have a few items of each class
        more.append("folds=2")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        evaluate([*command, *more])
    results: dict[str, dict[str, Any]] = json.loads((output / "results.json").read_text())["results"]
    return results


def faults(results: dict[str, dict[str, Any]]) -> list[str]:
    """One line for each evaluation without a result, or with a number that is not finite."""
    result = []
    for name, entry in results.items():
        if entry["status"] != "ok":
            remedy = (
                " Write its miniature in tests/evaluation/miniatures/."
                if entry["status"] == "missing"
                else ""
            )
            result.append(f"{name}: {entry['status']}: {entry['reason']}{remedy}")
        elif not entry["metrics"] or not all(math.isfinite(value) for value in entry["metrics"].values()):
            result.append(f"{name}: no metrics, or some that are not finite: {entry['metrics']}")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Everything, or what ``--suites`` and ``--models`` name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suites", nargs="*", choices=suites(), default=suites(), metavar="NAME")
    parser.add_argument("--models", nargs="*", choices=recipes(), default=list(MODELS), metavar="NAME")
    args = parser.parse_args(argv)
    bad = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, inside(Path(name)):
        make_miniatures(Path(name))
        print(f"{time.monotonic() - started:6.1f} s  miniatures", flush=True)
        for model in args.models:
            checkpoint = make_checkpoint(model, Path(name))
            for suite in args.suites:
                begin = time.monotonic()
                results = run_suite(suite, checkpoint, Path(name) / "results" / model / suite)
                wrong = faults(results)
                bad += len(wrong)
                seconds = time.monotonic() - begin
                print(
                    f"{seconds:6.1f} s  {model:5} {suite}: {len(results) - len(wrong)} of {len(results)}",
                    flush=True,
                )
                for line in wrong:
                    print(f"          {line}")
    result = f"{bad} evaluations have no result" if bad else "every evaluation has a result"
    print(f"{time.monotonic() - started:6.1f} s  {result}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
