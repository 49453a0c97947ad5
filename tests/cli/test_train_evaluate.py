"""`scripts/train.py` with `train.evaluate` and `train.keep_best`: real suites on tiny models, one and two processes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from hypvl.cli.common import run_main
from hypvl.cli.evaluate import main as evaluate_main
from hypvl.cli.make_demo_data import main as make_demo_data
from hypvl.cli.train import main as train_main
from tests.cli.test_evaluate import captions, colors, config
from tests.cli.test_train import ROOT, arguments, shards as shards, train

METRIC = "colors/top1_accuracy"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("suite")
    lost = colors(folder / "colors") | {
        "dataset": {
            "_target_": "hypvl.evaluation.datasets.classification.ImageFolderSet",
            "root": str(folder / "nowhere"),
        }
    }
    return config(folder, colors=colors(folder / "colors"), pairs=captions(folder / "pairs"), lost=lost)


def flags(suite: str, *more: str) -> list[str]:
    return ["train.evaluate.every=2", f"train.evaluate.config={suite}", *more]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def evaluations(folder: Path) -> dict[int, dict[str, float]]:
    """Iteration -> metrics of its evaluation, without the time it took."""
    found = {}
    for record in records(folder):
        if "evaluate/seconds" in record:
            kept = {name: value for name, value in record.items() if name.startswith("evaluate/")}
            assert record["iteration"] not in found
            found[record["iteration"]] = kept
            del kept["evaluate/seconds"]
    return found


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(record["iteration"], record["loss"]) for record in records(folder) if "loss" in record]


@pytest.fixture(scope="module")
def evaluated(shards: str, suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "evaluated"
    assert train(folder, shards, *flags(suite, f"train.keep_best.metric={METRIC}")) == 0
    return folder


def test_metrics_are_those_of_the_command_on_the_checkpoint(
    evaluated: Path, suite: str, tmp_path: Path
) -> None:
    found = evaluations(evaluated)
    assert list(found) == [0, 2, 4, 6]
    assert {name.rpartition("/")[0] for name in found[6]} == {"evaluate/colors", "evaluate/pairs"}
    command = ["--config", suite, "--output-dir", str(tmp_path), "--device", "cpu"]
    final = str(evaluated / "checkpoint_final.pth")
    assert run_main(evaluate_main, [*command, "--checkpoint-path", final]) == 1  # one is missing
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert found[6] == {
        f"evaluate/{name}/{metric}": value
        for name, result in results.items()
        for metric, value in result["metrics"].items()
        if not metric.endswith("_chance")
    }
    log = (evaluated / "log-rank0.txt").read_text()
    assert log.count("evaluation lost: missing: ") == 4 and log.count(": evaluated in ") == 4
    best = torch.load(evaluated / "checkpoint_best.pth", weights_only=True)
    assert best["best"]["value"] == max(values[f"evaluate/{METRIC}"] for values in found.values())
    assert best["iteration"] == best["best"]["iteration"] and "optimizer" in best
    assert (evaluated / "last_checkpoint.txt").read_text() == "checkpoint_final.pth\n"


def test_the_run_itself_is_the_same(evaluated: Path, shards: str, tmp_path: Path) -> None:
    assert train(tmp_path / "plain", shards) == 0
    assert losses(evaluated) == losses(tmp_path / "plain") and evaluations(tmp_path / "plain") == {}
    with_it, without = (
        torch.load(folder / "checkpoint_final.pth", weights_only=True)["model"]
        for folder in (evaluated, tmp_path / "plain")
    )
    assert all(torch.equal(with_it[name], without[name]) for name in without)


def test_a_resumed_run_measures_on(evaluated: Path, suite: str, shards: str, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    for name in ("checkpoint_00000003.pth", "metrics.jsonl", "checkpoint_best.pth"):
        shutil.copy(evaluated / name, half)
    (half / "last_checkpoint.txt").write_text("checkpoint_00000003.pth\n")
    before = (half / "checkpoint_best.pth").read_bytes()
    assert train(half, shards, *flags(suite, f"train.keep_best.metric={METRIC}"), "--resume") == 0
    assert evaluations(half) == evaluations(evaluated) and losses(half) == losses(evaluated)
    assert (half / "checkpoint_best.pth").read_bytes() == before
    assert "best so far: colors/top1_accuracy" in (half / "log-rank0.txt").read_text()


REFUSED = {
    "suite": (["train.evaluate.config=nowhere"], "train.evaluate.config: got 'nowhere', but no recipe has that name"),
    "name": (["train.evaluate.only=[colours]"], "train.evaluate.only: 'colours' is not in "),
    "override": (
        ["train.evaluate.overrides=['encoding.size=3']"],
        "train.evaluate.config with train.evaluate.overrides: unknown key 'encoding.size'",
    ),
    "evaluation": (["train.keep_best.metric=imagenet/x"], "train.keep_best.metric: got 'imagenet/x'; expected"),
    "left out": (["train.evaluate.only=[pairs]", f"train.keep_best.metric={METRIC}"], "train.evaluate: pairs."),
    "metric": (["train.keep_best.metric=colors/top1"], "but colors measures mean_per_class_accuracy"),
    "missing": (["train.keep_best.metric=lost/top1_accuracy"], "but the evaluation lost is missing: "),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_never_be_measured_is_refused_before_the_first_step(
    case: str, suite: str, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, message = REFUSED[case]
    assert train(tmp_path / "run", shards, *flags(suite, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not records(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_share_the_encoding(
    parallel: str, evaluated: Path, suite: str, shards: str, tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    more = [f"train.keep_best.metric={METRIC}", f"train.parallel={parallel}"]
    command = arguments(tmp_path / "two", shards, *flags(suite, *more))
    subprocess.run([*torchrun, str(ROOT / "scripts" / "train.py"), *command], check=True, cwd=ROOT)
    two, one = evaluations(tmp_path / "two"), evaluations(evaluated)
    assert two.keys() == one.keys()
    for iteration, metrics in one.items():
        assert two[iteration] == pytest.approx(metrics, abs=1e-4)
    best = torch.load(tmp_path / "two" / "checkpoint_best.pth", weights_only=True)
    assert (
        best["best"]["value"]
        == torch.load(evaluated / "checkpoint_best.pth", weights_only=True)["best"]["value"]
    )
    assert len(best["rng"]) == 2


@pytest.mark.slow
def test_zero_shot_accuracy_rises_while_the_demo_trains(tmp_path: Path) -> None:
    """The recipe of the demo, cut to 250 of its 900 steps; docs/training.md has the figures."""
    data, folder = tmp_path / "data", tmp_path / "run"
    assert run_main(make_demo_data, ["--output-dir", str(data), "--quiet"]) == 0
    code = run_main(
        train_main,
        [
            "--config", str(ROOT / "configs" / "train_clip_demo.py"), "--num-gpus", "0", "--output-dir", str(folder),
            f"dataset.tarfiles=[{data}/train/*.tar]", "train.num_iterations=250",
            "train.evaluate.every=100", f"train.evaluate.config={ROOT / 'configs' / 'eval_demo.py'}",
            f"train.evaluate.overrides=['roots.demo={data}']",
            "train.evaluate.only=[scenes_shape_seen,scenes_retrieval]",
            "train.keep_best.metric=scenes_shape_seen/top1_accuracy",
        ],
    )  # fmt: skip
    logger.remove()
    assert code == 0
    for metric in ("scenes_shape_seen/top1_accuracy", "scenes_retrieval/text_to_image_recall@1"):
        values = [evaluations(folder)[iteration][f"evaluate/{metric}"] for iteration in (0, 100, 200, 250)]
        assert values[0] < values[1] < values[2] and values[-1] > 1.5 * values[0]
