"""The benchmark of a frozen teacher runs, and measures what it says."""

import json
import sys

import pytest

from benchmarks import teacher


@pytest.mark.slow  # two ViT-S
def test_figures_of_a_tiny_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["teacher", "--rows", "2", "--image-size", "32", "--repeats", "1"])
    teacher.main()
    result = json.loads(capsys.readouterr().out)
    assert result["benchmark"] == "teacher" and result["forward_seconds"] > 0
    assert result["taught_seconds"] > 0 and result["plain_seconds"] > 0


@pytest.mark.slow
def test_the_taught_learner_has_a_frozen_teacher_and_one_more_term() -> None:
    learner = teacher.learner_of(32, taught=True)
    assert list(learner.get_teachers()) == ["teacher"] and "simreg" in learner.objective.terms
    assert not any(p.requires_grad for p in learner.teachers.parameters())
