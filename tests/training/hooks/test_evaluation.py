"""Evaluations during training: their records, what they leave untouched, the best checkpoint."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger
from torch import Tensor, nn

from hypvl.errors import ConfigError
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.hooks.best import BestCheckpoint
from hypvl.training.hooks.evaluation import Evaluation, split_metric
from hypvl.training.hooks.metrics import Metrics
from hypvl.training.hooks.sinks import JsonLines, TensorBoard
from hypvl.training.loop import Hook, StepResult, Trainer
from hypvl.training.step import Learner
from tests.training.test_loop import Memory, batches, trainer
from tests.training.tiny import tiny_learner


def ok(**metrics: float) -> dict[str, Any]:
    return {
        "status": "ok",
        "metrics": metrics,
        "meta": {"main_metric": next(iter(metrics))},
        "items": {"key": ["a"]},
    }


class Scripted:
    """Gives what it is told to, and disturbs all that a careless evaluator could disturb."""

    def __init__(self, entries: Sequence[Mapping[str, Any]], *, names: Sequence[str] = ("colors",)) -> None:
        self.names = names
        self.entries = iter(entries)
        self.weights: list[float] = []

    def measure(self, name: str, model: DualEncoder) -> Mapping[str, Any]:
        assert not any(module.training for module in model.modules())
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        model.train()
        self.weights.append(sum(p.sum().item() for p in model.parameters()))
        return next(self.entries)


class Losses(Hook):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        self.seen.append(step.output.total.item())


def hook(suite: Any, memory: Memory, *, every: int = 2, **given: Any) -> Evaluation:
    return Evaluation(suite, [memory], every=every, metrics=Metrics(period=10**6), **given)


def best(folder: Path, metric: str = "colors/accuracy", **given: Any) -> BestCheckpoint:
    def collect(trainer: Trainer) -> dict[str, Any]:
        return {"model": trainer.learner.model.state_dict(), "iteration": trainer.iteration}

    return BestCheckpoint(folder, metric, collect=collect, **given)


def learner_with_dropout() -> Learner:
    """Its losses depend on torch's generator and on the mode; one part is frozen and stays in evaluation mode."""
    learner = tiny_learner("clip")
    learner.model.textual.dropout = nn.Dropout(0.5)
    learner.model.textual.register_forward_hook(lambda module, _, out: module.dropout(out))  # type: ignore[union-attr]
    learner.train()
    return learner


def weights(learner: Learner) -> list[Tensor]:
    return [p.detach().clone() for p in learner.parameters()]


def test_a_run_is_bit_for_bit_the_same_with_evaluations() -> None:
    runs = []
    for evaluated in (False, True):
        torch.manual_seed(3)
        losses, suite = Losses(), Scripted([ok(accuracy=1.0)] * 9)
        hooks = (losses, hook(suite, Memory(), every=1)) if evaluated else (losses,)
        learner = learner_with_dropout()
        trainer(learner, iterations=6, hooks=hooks).run()
        assert learner.model.textual.dropout.training  # type: ignore[union-attr]
        runs.append((losses.seen, weights(learner)))
        assert len(suite.weights) == (7 if evaluated else 0)
    assert runs[0][0] == runs[1][0] and len(set(runs[0][0])) == 6
    assert all(map(torch.equal, runs[0][1], runs[1][1]))


def test_records_at_the_start_at_the_period_and_at_the_end() -> None:
    values = [10.0, 20.0, 30.0, 40.0]
    suite, memory = Scripted([ok(accuracy=v, accuracy_chance=5.0) for v in values]), Memory()
    trainer(tiny_learner("clip"), iterations=5, hooks=(hook(suite, memory),)).run()
    assert [record["iteration"] for record in memory.records] == [0, 2, 4, 5]
    assert [record["evaluate/colors/accuracy"] for record in memory.records] == values
    assert {*memory.records[0]} == {"iteration", "evaluate/colors/accuracy", "evaluate/seconds"}
    assert len(set(suite.weights)) >= 3  # of the model as it is then; the first step has rate 0
    assert not memory.closed  # by the hook that logs


def test_records_are_in_the_file_and_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sinks = [JsonLines(tmp_path / "metrics.jsonl"), TensorBoard(tmp_path / "events")]
    suite, metrics = Scripted([ok(accuracy=v) for v in (1.0, 2.0)]), Metrics(sinks, period=10**6)
    evaluation = Evaluation(suite, sinks, every=4, metrics=metrics)
    trainer(tiny_learner("clip"), iterations=4, hooks=(metrics, evaluation)).run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 4, 4]  # the second with the losses
    assert lines[0]["evaluate/colors/accuracy"] == 1.0 and "loss" in lines[1]
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    scalars = events.Scalars("train/evaluate/colors/accuracy")
    assert [(scalar.step, scalar.value) for scalar in scalars] == [(0, 1.0), (4, 2.0)]


def test_what_fails_or_is_missing_is_a_warning() -> None:
    failed = {"status": "failed", "reason": "ValueError: odd.", "metrics": {}}
    missing = {"status": "missing", "reason": "put it there.", "metrics": {}}
    suite = Scripted([missing, failed, ok(accuracy=1.0), failed], names=("a", "b"))
    memory, lines = Memory(), []  # type: ignore[var-annotated]
    sink = logger.add(lambda message: lines.append(str(message)), format="{level} {message}")
    trainer(tiny_learner("clip"), iterations=3, hooks=(hook(suite, memory, every=3),)).run()
    logger.remove(sink)
    assert "WARNING iteration 0: evaluation a: missing: put it there.\n" in lines
    assert "WARNING iteration 3: evaluation b: failed: ValueError: odd.\n" in lines
    assert any("evaluated in" in line and line.endswith(": a accuracy 1\n") for line in lines)
    assert [set(record) - {"iteration", "evaluate/seconds"} for record in memory.records] == [
        set(),
        {"evaluate/a/accuracy"},
    ]


@pytest.mark.parametrize(("mode", "kept"), [("max", 4), ("min", 2)])
def test_the_best_state_is_kept(tmp_path: Path, mode: Any, kept: int) -> None:
    keeper = best(tmp_path, mode=mode)
    suite = Scripted([ok(accuracy=v) for v in (30.0, 20.0, 50.0, 40.0)])
    trainer(tiny_learner("clip"), iterations=6, hooks=(hook(suite, Memory(), best=keeper),)).run()
    content = load_checkpoint(tmp_path / "checkpoint_best.pth")
    assert content["iteration"] == kept
    value = {"max": 50.0, "min": 20.0}[mode]
    assert content["best"] == {
        "metric": "colors/accuracy",
        "mode": mode,
        "value": value,
        "iteration": kept,
    }
    total = sum(
        content["model"][name].sum().item() for name, _ in tiny_learner("clip").model.named_parameters()
    )
    assert total == pytest.approx(suite.weights[kept // 2], abs=1e-3)


def resumed(
    folder: Path, entries: Sequence[Mapping[str, Any]], **given: Any
) -> tuple[BestCheckpoint, Memory]:
    keeper, memory = best(folder, **given), Memory()
    run = trainer(
        tiny_learner("clip"), iterations=6, hooks=(hook(Scripted(entries), memory, best=keeper),), iteration=4
    )
    run.loader = batches(4)
    run.run()
    return keeper, memory


def test_a_resumed_run_knows_the_best(tmp_path: Path) -> None:
    first = Scripted([ok(accuracy=v) for v in (30.0, 50.0, 40.0)])
    trainer(tiny_learner("clip"), iterations=4, hooks=(hook(first, Memory(), best=best(tmp_path)),)).run()
    before = (tmp_path / "checkpoint_best.pth").read_bytes()
    keeper, memory = resumed(tmp_path, [ok(accuracy=45.0)])
    assert [record["iteration"] for record in memory.records] == [6]
    assert keeper.value == 50.0 and (tmp_path / "checkpoint_best.pth").read_bytes() == before
    keeper, _ = resumed(tmp_path, [ok(accuracy=51.0)])
    assert (
        keeper.value == 51.0 and load_checkpoint(tmp_path / "checkpoint_best.pth")["best"]["iteration"] == 6
    )
    # By another measure, or from a damaged file, nothing is known: the present model is measured first.
    keeper, memory = resumed(tmp_path, [ok(accuracy=70.0), ok(accuracy=90.0)], mode="min")
    assert [record["iteration"] for record in memory.records] == [4, 6] and keeper.value == 70.0
    (tmp_path / "checkpoint_best.pth").write_bytes(before[:1000])
    keeper, memory = resumed(tmp_path, [ok(accuracy=1.0), ok(accuracy=2.0)])
    assert keeper.value == 2.0


def test_a_best_of_later_steps_than_the_run_goes_on_from_is_kept_and_said(tmp_path: Path) -> None:
    first = Scripted([ok(accuracy=v) for v in (30.0, 40.0, 45.0, 50.0)])
    trainer(tiny_learner("clip"), iterations=6, hooks=(hook(first, Memory(), best=best(tmp_path)),)).run()
    lines: list[str] = []
    handle = logger.add(lambda line: lines.append(line.record["message"]), level="WARNING")
    keeper, _ = resumed(tmp_path, [ok(accuracy=49.0)])
    logger.remove(handle)
    assert keeper.value == 50.0 and len(lines) == 1
    assert "is from iteration 6, after iteration 4 where the run goes on" in lines[0]


@pytest.mark.parametrize(
    ("metric", "entry", "message"),
    [
        (
            "colors/acuracy",
            ok(accuracy=1.0, accuracy_chance=5.0, recall=2.0),
            r"got 'colors/acuracy', but colors measures accuracy, recall; expected",
        ),
        (
            "colors/accuracy",
            {"status": "missing", "reason": "no folder.", "metrics": {}},
            r"got .colors/accuracy., but the evaluation colors is missing: no folder\. \(Repair it",
        ),
    ],
)
def test_a_metric_that_cannot_be_is_an_error_before_the_first_step(
    tmp_path: Path, metric: str, entry: Mapping[str, Any], message: str
) -> None:
    losses, memory = Losses(), Memory()
    run = trainer(
        tiny_learner("clip"), hooks=(losses, hook(Scripted([entry]), memory, best=best(tmp_path, metric)))
    )
    with pytest.raises(ConfigError, match=rf"^train\.keep_best\.metric: {message}"):
        run.run()
    assert losses.seen == [] and memory.records == []  # the folder can be used again
    assert not (tmp_path / "checkpoint_best.pth").exists()


def test_a_metric_names_its_evaluation() -> None:
    names = ("coco", "coco/karpathy")
    assert split_metric("coco/karpathy/recall@1", names) == ("coco/karpathy", "recall@1")
    assert split_metric("coco/recall@1", names) == ("coco", "recall@1")
    with pytest.raises(
        ConfigError, match=r"got 'imagenet/top1'; expected .* train\.evaluate: coco, coco/karpathy"
    ):
        split_metric("imagenet/top1", names)


class Stop(Hook):
    def __init__(self, at: int = 2) -> None:
        self.at = at

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        import signal

        if trainer.iteration == self.at:
            signal.raise_signal(signal.SIGTERM)


def test_a_run_that_is_asked_to_stop_measures_no_more() -> None:
    suite, memory = Scripted([ok(accuracy=1.0)] * 2, names=("a", "b")), Memory()
    run = trainer(tiny_learner("clip"), iterations=4, hooks=(Stop(), hook(suite, memory)))
    run.run()
    assert run.iteration == 2 and [record["iteration"] for record in memory.records] == [0]
    assert run.learner.model.training and run.between_steps is None


@pytest.mark.parametrize("at", [2, 4])
def test_what_was_given_up_is_made_up_for_once(tmp_path: Path, at: int) -> None:
    """Also where the step was the last one: such a run is not finished."""
    folder = tmp_path / "run"
    folder.mkdir()

    def run(iteration: int, entries: Sequence[Mapping[str, Any]], *more: Hook) -> Trainer:
        file, keeper = JsonLines(folder / "metrics.jsonl", iteration=iteration), best(folder)
        metrics = Metrics([file], period=10**6)
        suite = Scripted(entries, names=("colors", "b"))
        measured = Evaluation(suite, [file], every=2, metrics=metrics, best=keeper, records=file)
        run = trainer(
            tiny_learner("clip"), iterations=4, hooks=(*more, metrics, measured), iteration=iteration
        )
        run.run()
        return run

    def evaluated() -> dict[int, float]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        name = "evaluate/colors/accuracy"
        return {line["iteration"]: line[name] for line in lines if name in line}

    entries = [ok(accuracy=v) for v in (1.0, 1.0, 2.0, 2.0, 3.0, 3.0)]  # of the two at steps 0, 2 and 4
    stopped = run(0, entries[:at], Stop(at))
    assert stopped.iteration == at and stopped.cut_short and not stopped.complete
    assert evaluated() == {step: step / 2 + 1 for step in range(0, at, 2)}
    resumed = run(at, entries[at:])
    assert resumed.complete and not resumed.cut_short
    assert evaluated() == {0: 1.0, 2: 2.0, 4: 3.0}
    assert load_checkpoint(folder / "checkpoint_best.pth")["best"]["iteration"] == 4
    run(4, [])  # nothing is left


def test_the_time_is_not_counted_as_training() -> None:
    metrics = Metrics(period=10**6)
    before = metrics._started
    metrics.leave_out(2.5)
    assert metrics._started == before + 2.5
