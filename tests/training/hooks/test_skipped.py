"""Steps that are not finite: who they were is said, and a run that gives up leaves weights and samples."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from hypvl import distributed
from hypvl.errors import UserError
from hypvl.losses.base import IMAGE, LossTerm, Objective, PairContext
from hypvl.losses.contrastive import Contrastive
from hypvl.training.accumulation import GradCache
from hypvl.training.hooks.checkpoints import Checkpoints
from hypvl.training.hooks.sinks import JsonLines
from hypvl.training.hooks.skipped import SKIPPED_STEPS_NAME, SkippedSteps
from hypvl.training.loop import Hook, StepResult, Trainer
from hypvl.training.step import Learner
from tests.ranks import run_ranks
from tests.training.test_loop import Poisoned, batches, trainer
from tests.training.tiny import rows_of, tiny_learner, tiny_model

BAD_KEY = "key 2.5"  # step 3, sample 5


def keyed(*, poisoned: bool = True) -> Iterator[dict[str, Any]]:
    """Batches with keys; in the third one a pixel of sample 5 is NaN."""
    for step, batch in enumerate(batches()):
        batch["key"] = [f"key {step}.{row}" for row in range(8)]
        batch["image"] = batch["image"].float() / 255
        if poisoned and step == 2:
            batch["image"][5, 0, 3, 3] = float("nan")
        yield batch


def own_rows(batch: dict[str, Any]) -> dict[str, Any]:
    world, size = distributed.world_size(), len(batch["key"]) // distributed.world_size()
    keys = batch["key"][distributed.rank() * size :][:size]
    return {**rows_of(batch, distributed.rank(), world), "key": keys}


class Written(Hook):
    """The lines that are logged while it trains."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stepped: list[bool] = []
        self._handler = logger.add(
            lambda line: self.lines.append(str(line).strip()), format="{level} {message}"
        )

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        self.stepped.append(bool(step.stepped))

    def close(self, trainer: Trainer) -> None:
        logger.remove(self._handler)


def run(
    folder: Path, learner: Learner, *, limit: int = 4, iterations: int = 5, **given: Any
) -> tuple[Trainer, Written]:
    """A run that is ready, with the hooks of a real one."""
    written = Written()
    made = trainer(learner, iterations=iterations, **given)
    made.loader = (own_rows(batch) for batch in keyed())
    checkpoints = Checkpoints(
        folder, collect=lambda trainer: {"iteration": trainer.iteration, **learner.state_dict()}, period=100, keep=1
    )  # fmt: skip
    file = JsonLines(folder / SKIPPED_STEPS_NAME) if distributed.is_main() else None
    made.hooks = (
        written,
        SkippedSteps(limit, folder=folder, save=checkpoints.save_now, file=file),
        checkpoints,
    )
    return made, written


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / SKIPPED_STEPS_NAME).read_text().splitlines()]


@pytest.mark.parametrize("way", ["direct", "gradient cache", "naive"])
def test_a_sample_that_is_not_finite_is_named(tmp_path: Path, way: str) -> None:
    given = {"gradient cache": {"cache": GradCache(3)}, "naive": {"naive_parts": 2}}.get(way, {})
    made, written = run(tmp_path, tiny_learner("meru"), **given)
    made.run()
    at = 2 if way == "naive" else 3  # of two batches the second has it
    assert written.stepped == [step != at for step in range(1, 6)]
    (line,) = [line for line in written.lines if "step skipped" in line]
    expected = (
        f"WARNING iteration {at}: step skipped: the loss (contrastive, entailment) is not finite on rank 0"
    )
    assert line == f"{expected}; features are not finite of {BAD_KEY} on rank 0"
    (record,) = records(tmp_path)
    assert record == {
        "iteration": at, "rank": 0, "loss": None, "grad_norm": None, "terms": ["contrastive", "entailment"],
        "samples": 16 if way == "naive" else 8, "not_finite": 1, "keys": [BAD_KEY],
    }  # fmt: skip


@pytest.mark.parametrize("gradient", [True, False])
def test_without_such_a_sample_the_keys_of_the_batch_are_named(tmp_path: Path, gradient: bool) -> None:
    made, written = run(
        tmp_path, Learner(tiny_model("clip"), Objective({"a": Poisoned(2, gradient=gradient)}))
    )
    made.loader = keyed(poisoned=False)
    made.run()
    (line,) = [line for line in written.lines if "step skipped" in line]
    what = "the loss is finite, a gradient is not" if gradient else "the loss (a) is not finite on rank 0"
    assert (
        line
        == f"WARNING iteration 2: step skipped: {what}; samples: {', '.join(f'key 1.{i}' for i in range(8))}"
    )
    (record,) = records(tmp_path)
    assert (record["loss"] is None, record["not_finite"], len(record["keys"])) == (not gradient, 0, 8)


class Infinite(LossTerm):
    """Infinite from a step on."""

    needs = frozenset({IMAGE})

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first, self.calls = first, 0

    def forward(self, ctx: PairContext) -> torch.Tensor:
        self.calls += 1
        value = ctx.features(IMAGE).square().mean()
        return value * float("inf") if self.calls >= self.first else value


def test_a_run_that_gives_up_leaves_weights_and_samples(tmp_path: Path) -> None:
    """The checkpoint has the weights after the last good step; the file is plain data of bounded size."""
    learner = Learner(tiny_model("clip"), Objective({"pairs": Contrastive(), "a": Infinite(3)}))
    made, _ = run(tmp_path, learner, limit=3, iterations=9)
    made.loader = keyed(poisoned=False)
    with pytest.raises(UserError) as raised:
        made.run()
    message = str(raised.value)
    assert (
        "3 steps in a row up to iteration 5" in message and "the loss (a) is not finite on rank 0" in message
    )
    assert f"its samples are in skipped_batch_rank0.pt of {tmp_path}" in message
    assert f"the weights before them are saved in {tmp_path / 'checkpoint_00000005.pth'}" in message
    saved = torch.load(tmp_path / "checkpoint_00000005.pth", weights_only=True)
    before = Learner(tiny_model("clip"), Objective({"pairs": Contrastive(), "a": Infinite(9)}))
    undisturbed = trainer(before, iterations=9)
    undisturbed.loader = keyed(poisoned=False)
    undisturbed.hooks = (StopAt(2),)
    undisturbed.run()
    assert all(
        torch.equal(saved[name], value) for name, value in before.state_dict().items() if "steps" not in name
    )
    dump = torch.load(tmp_path / "skipped_batch_rank0.pt", weights_only=True)
    assert (dump["iteration"], dump["rank"], dump["terms"], dump["loss"]) == (5, 0, ["a"], float("inf"))
    (batch,) = dump["batches"]
    assert batch["key"] == [f"key 4.{row}" for row in range(8)]
    expected = next(batch for step, batch in enumerate(keyed()) if step == 4)
    assert all(torch.equal(batch[name], expected[name]) for name in ("image", "text", "position"))


class StopAt(Hook):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        trainer.stop_requested = trainer.iteration == self.iteration


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    learner = tiny_learner("clip")
    with torch.no_grad():
        learner.model.visual_head.projection.weight.fill_(float("nan"))  # type: ignore[union-attr]
    made, _ = run(tmp_path, learner, limit=2)
    with pytest.raises(
        UserError, match=r"no checkpoint was written \(.*weights are not finite.*optim\.optimizer\.lr"
    ):
        made.run()
    assert not list(tmp_path.glob("*.pth"))


def test_lines_of_the_log_are_bounded(tmp_path: Path) -> None:
    made, written = run(
        tmp_path, Learner(tiny_model("clip"), Objective({"a": Infinite(1)})), limit=40, iterations=30
    )
    made.run()
    lines = [line for line in written.lines if line.startswith("WARNING")]
    assert sum("step skipped" in line for line in lines) == 20
    assert "listed in skipped_steps.jsonl only" in lines[-1] and len(records(tmp_path)) == 30


def test_overflow_of_the_loss_scale_is_routine(tmp_path: Path) -> None:
    made, written = run(tmp_path, Learner(tiny_model("clip"), Objective({"a": Poisoned(2, gradient=True)})))
    made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    made.loader = keyed(poisoned=False)
    made.run()
    assert made.scaler.get_scale() == 1.0 and written.stepped[1] is False
    assert [line.split()[0] for line in written.lines if "skipped" in line] == ["DEBUG"]


def _a_rank(folder: Path, limit: int) -> tuple[list[bool], list[str], str]:
    """Rank 1 of two has the bad sample."""
    made, written = run(folder, tiny_learner("meru"), limit=limit)
    message = ""
    try:
        made.run()
    except UserError as error:
        message = str(error)
    return written.stepped, written.lines, message


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 4])
def test_ranks_skip_together(tmp_path: Path, limit: int) -> None:
    first, second = run_ranks(2, _a_rank, tmp_path, limit)
    assert first[0] == second[0] == ([True] * 2 + [False] + [True] * 2)[: 3 if limit == 1 else 5]
    (line,) = [line for line in first[1] if "step skipped" in line]
    assert not second[1] or not any("step skipped" in line for line in second[1])
    assert line.endswith(f"not finite on ranks 0, 1; features are not finite of {BAD_KEY} on rank 1")
    assert [(record["rank"], record["keys"]) for record in records(tmp_path)] == [(1, [BAD_KEY])]
    assert first[2] == second[2] and bool(first[2]) == (limit == 1)
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["skipped_batch_rank1.pt"] * (limit == 1)
    if limit == 1:
        dump = torch.load(tmp_path / "skipped_batch_rank1.pt", weights_only=True)
        assert dump["not_finite"] == [BAD_KEY] and dump["batches"][0]["key"][0] == BAD_KEY
        assert dump["batches"][0]["image"][0].isnan().sum() == 1
