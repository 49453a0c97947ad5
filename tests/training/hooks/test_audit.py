"""The live audit: numbers of the step's own embeddings, at its own times, of all ranks together."""

import json
from pathlib import Path

import pytest
import torch
from loguru import logger

from hypvl import distributed
from hypvl.diagnostics.audit import in_percent, summary
from hypvl.errors import ConfigError
from hypvl.losses.base import IMAGE, TEXT, View
from hypvl.training.config import TrainConfig
from hypvl.training.hooks.audit import LiveAudit
from hypvl.training.hooks.sinks import JsonLines, Record
from hypvl.training.loop import Hook, StepResult, Trainer
from hypvl.training.run import _live_audit
from tests.ranks import run_ranks
from tests.training.test_loop import batches, trainer
from tests.training.tiny import rows_of, tiny_learner


class Memory:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.closed = 0

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None:
        self.closed += 1


class Watch(Hook):
    """Keeps the embeddings of every step."""

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.curv: list[float] = []

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        self.seen.append((step.ctx.embeddings(IMAGE).detach(), step.ctx.embeddings(TEXT).detach()))
        self.curv.append(trainer.learner.model.geometry.stats()["curv"])


def test_numbers_are_those_of_the_step() -> None:
    memory, own, watch = Memory(), Memory(), Watch()
    learner = tiny_learner("meru")
    hook = LiveAudit([memory, own], owned=[own], every=3, samples=6)
    trainer(learner, iterations=7, hooks=(watch, hook)).run()
    assert [record["iteration"] for record in memory.records] == [3, 6]
    assert memory.records == own.records and (memory.closed, own.closed) == (0, 1)
    images, texts = watch.seen[5]
    with torch.no_grad():  # the curvature of the sixth step
        learner.model.geometry.log_curv.fill_(torch.tensor(watch.curv[5]).log())
    again = summary(learner.model.geometry, images[:6], texts[:6], generator=torch.Generator().manual_seed(6))
    expected = {f"audit/{name}": value for name, value in in_percent(again).items()}
    result = {name: value for name, value in memory.records[1].items() if name != "iteration"}
    assert result == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert {
        "audit/text_radius_q50",
        "audit/cone_violation_rate",
        "audit/radial_order_auc_null",
        "audit/curv",
    } <= set(result)


def _on_a_rank() -> list[Record]:
    """Two steps of one rank of two; the batch is split between them."""
    memory = Memory()
    run = trainer(tiny_learner("meru"), iterations=3, hooks=(LiveAudit([memory], every=1, samples=8),))
    run.loader = (rows_of(batch, distributed.rank(), distributed.world_size()) for batch in batches())
    run.run()
    return memory.records


@pytest.mark.slow
def test_ranks_are_audited_together() -> None:
    """Rank 0 alone writes, and what it writes in the first step is what one process sees."""
    first, second = run_ranks(2, _on_a_rank)
    memory = Memory()
    trainer(tiny_learner("meru"), iterations=3, hooks=(LiveAudit([memory], every=1, samples=8),)).run()
    assert second == [] and [record["iteration"] for record in first] == [1, 2, 3]
    assert first[0] == pytest.approx(memory.records[0], rel=1e-4, abs=1e-4)


def test_training_is_the_same_with_and_without_it() -> None:
    weights = []
    for hooks in ((), (LiveAudit([Memory()], every=1),)):
        learner = tiny_learner("meru")
        torch.manual_seed(0)
        trainer(learner, iterations=4, hooks=hooks).run()
        weights.append([*(p.detach().clone() for p in learner.parameters()), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_a_line_says_it_in_words() -> None:
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)))
    try:
        trainer(tiny_learner("clip"), iterations=3, hooks=(LiveAudit([], every=3),)).run()
    finally:
        logger.remove(handler)
    (line,) = [line for line in lines if "audit" in line]
    assert "iteration 3: audit: no curvature: " in line and "relative modality gap" in line.lower()


class Flatten(Hook):
    """Sets the curvature, and makes every feature as good as 0 for a while: steps 3 and 4 of 6."""

    def before_step(self, trainer: Trainer) -> None:
        step, model = trainer.iteration + 1, trainer.learner.model
        with torch.no_grad():
            model.geometry.log_curv.fill_(torch.tensor(0.1).log() if step in (3, 4) else 0.0)  # type: ignore[operator]
            for head in (model.visual_head, model.textual_head):
                head.log_scale.fill_(-6.0 if step in (3, 4) else 0.0)  # type: ignore[union-attr, operator]


def test_an_idle_geometry_is_said_once_with_what_to_try_and_when_it_is_over() -> None:
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), format="{level} {message}")
    try:
        trainer(tiny_learner("meru"), iterations=6, hooks=(Flatten(), LiveAudit([], every=1))).run()
    finally:
        logger.remove(handler)
    said = [line.strip() for line in lines if "idle" in line and ": audit:" not in line]
    reason = "curvature at its floor, cones saturated: geometry idle since step 3"
    assert said[0].startswith(
        f"WARNING iteration 3: {reason}; try a curvature that is not learned (model.geometry.learn_curv=false)"
    )
    assert said[1:] == [f"INFO iteration 4: {reason}", "INFO iteration 5: geometry no longer idle"]


def test_the_first_audit_of_a_process_knows_no_start() -> None:
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), format="{message}")
    try:
        trainer(tiny_learner("meru"), iterations=3, hooks=(Flatten(), LiveAudit([], every=3))).run()
    finally:
        logger.remove(handler)
    assert any("geometry idle since step 3 or earlier; try" in line for line in lines)


def test_what_cannot_be_audited_is_said() -> None:
    run = trainer(tiny_learner("clip"), hooks=(LiveAudit([], every=1),))
    run.learner.views = (View("image", "crops.0"), TEXT)
    with pytest.raises(
        ConfigError, match=r"train\.audit\.every: got 1, but the objective does not encode image:image"
    ):
        run.run()


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        ({"every": -1, "samples": 8}, r"train\.audit\.every: got -1; expected a whole number of at least 0"),
        ({"every": 0.5, "samples": 8}, r"train\.audit\.every: got 0\.5; expected a whole number"),
        ({"every": 5, "samples": 1}, r"train\.audit\.samples: got 1; expected a whole number of at least 2"),
    ],
)
def test_wrong_settings_are_refused(audit: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.read({"objective": {}, "audit": audit})


def test_it_is_off_unless_asked_for_and_writes_a_file_of_its_own(tmp_path: Path) -> None:
    run = trainer(tiny_learner("meru"), iterations=4)
    assert _live_audit(TrainConfig.read({"objective": {}}), tmp_path, [], run, []) == []
    console, own = Memory(), JsonLines(tmp_path / "metrics.jsonl")
    on = TrainConfig.read({"objective": {}, "audit": {"every": 2, "samples": 8, "aperture_factor": 0.7}})
    files: list[JsonLines] = []
    run.hooks = _live_audit(on, tmp_path, [console, own], run, files)
    assert len(files) == 1  # brought to disk before a checkpoint
    run.run()
    own.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [2, 4]
    assert "audit/modality_gap" in lines[0]
    assert not console.records and not (tmp_path / "metrics.jsonl").read_text()
