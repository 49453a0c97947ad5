"""Bad samples are listed once each, and the log tells of them as their number doubles; so in resumed runs."""

import json
from pathlib import Path

import pytest
from loguru import logger

from hypvl.data.bad_samples import BadSamples
from hypvl.training.hooks import metrics
from hypvl.training.hooks.metrics import Metrics
from hypvl.training.hooks.sinks import JsonLines
from hypvl.training.loop import Hook, StepResult, Trainer
from tests.training.test_loop import trainer
from tests.training.tiny import tiny_learner


class Reads(Hook):
    """Counts the bad samples of each step."""

    def __init__(self, bad: BadSamples, by_step: list[list[str]]) -> None:
        self.bad, self.by_step = bad, iter(by_step)

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        self.bad.add(8, [(key, "torn") for key in next(self.by_step)])


def run(path: Path, by_step: list[list[str]], *, resumed: int = 0) -> list[str]:
    """The lines of the log; what is listed is in the file."""
    lines: list[str] = []
    handle = logger.add(lambda line: lines.append(line.record["message"]), level="WARNING")
    bad = BadSamples(max_fraction=1.0)
    hooks = (Reads(bad, by_step), Metrics(period=1, bad=bad, bad_file=JsonLines(path, iteration=resumed)))
    made = trainer(tiny_learner("clip"), iterations=resumed + len(by_step), hooks=hooks)
    made.iteration = resumed
    made.run()
    logger.remove(handle)
    return [line for line in lines if "bad" in line]


def listed(path: Path) -> list[tuple[int, str]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [(record["iteration"], record["key"]) for record in records]


def test_each_is_listed_once_and_told_of_as_they_double(tmp_path: Path) -> None:
    path = tmp_path / "bad_samples.jsonl"
    said = run(path, [["a"], ["b", "a"], ["a"], ["c"], ["d", "d"], ["a", "b"]])
    assert listed(path) == [(1, "a"), (2, "b"), (4, "c"), (5, "d")]
    assert [line.partition(",")[0] for line in said] == [
        "data: 1 more bad sample (a: torn)",
        "data: 1 more bad sample (b: torn)",
        "data: 2 more bad samples (c: torn; d: torn)",
    ]
    assert said[0].endswith("; all in bad_samples.jsonl")
    said = run(path, [["b"], ["e"], ["c"]], resumed=2)  # two are known and told of
    assert [line.partition(",")[0] for line in said] == ["data: 2 more bad samples (e: torn; c: torn)"]
    assert listed(path) == [(1, "a"), (2, "b"), (4, "e"), (5, "c")]


def test_so_many_are_listed_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_LISTED", 3)
    path = tmp_path / "bad_samples.jsonl"
    said = run(path, [["a", "b"], ["c", "d"], ["e"]])
    assert [key for _, key in listed(path)] == ["a", "b", "c"]
    assert [line for line in said if "not listed" in line] == [
        "data: 3 different samples are bad; more are counted, but not listed"
    ]
