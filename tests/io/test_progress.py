"""Progress bars: on a terminal only, late where work may be short, one at a time."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hypvl.embedding.search import exact_ranks, search
from hypvl.evaluation.probes.kmeans import best_kmeans
from hypvl.evaluation.probes.logistic import LogisticPath
from hypvl.io import progress
from hypvl.io.progress import counted, no_bars, terminal_bar
from tests.evaluation.fakes import FakeModel


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")


def slow(items: int) -> Iterator[int]:
    for i in range(items):
        time.sleep(0.03)
        yield i


@pytest.mark.usefixtures("terminal")
def test_a_loop_is_counted_once_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(counted(slow(3), "short work", total=3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "SOON", 0.01)
    assert list(counted(slow(3), "long [work]", total=3)) == [0, 1, 2]
    error = capsys.readouterr().err
    assert "long [work]" in error and "2/3" in error


@pytest.mark.usefixtures("terminal")
def test_one_step_that_takes_long_shows_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_bar("one step", after=0.01) as move_bar:
        move_bar(0, 1)
        time.sleep(0.2)
    assert "one step" in capsys.readouterr().err


@pytest.mark.usefixtures("terminal")
def test_there_is_one_bar_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_bar("outer") as move_bar:
        move_bar(1, 2)
        with terminal_bar("inner") as inner:
            inner(1, 2)
    with no_bars(), terminal_bar("hidden") as hidden:
        hidden(1, 2)
    with no_bars(hidden=False), terminal_bar("again") as again:
        again(1, 2)
    error = capsys.readouterr().err
    assert "outer" in error and "again" in error
    assert "inner" not in error and "hidden" not in error


def test_elsewhere_nothing_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SOON", 0.001)
    assert list(counted(slow(2), "work")) == [0, 1]
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("what", ["searching", "ranking", "k-means", "logistic regression"])
def test_long_work_of_evaluations_has_its_bar(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each says what it does, when it takes longer than a moment."""
    shown: list[str] = []
    bar = progress.terminal_bar

    def recorded(label: str, **settings: Any) -> Any:
        shown.append(label)
        assert settings["after"] == progress.SOON
        return bar(label, **settings)

    monkeypatch.setattr(progress, "terminal_bar", recorded)
    monkeypatch.setattr("hypvl.evaluation.probes.logistic.terminal_bar", recorded)
    rows = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    model, ways = FakeModel(), {"query_modality": "image", "key_modality": "text"}
    if what == "searching":
        search(model, rows, rows, k=2, **ways)  # type: ignore[arg-type]
    elif what == "ranking":
        exact_ranks(model, rows, rows, [[i] for i in range(12)], **ways)  # type: ignore[arg-type]
    elif what == "k-means":
        best_kmeans(rows, 2, restarts=2)
    else:
        LogisticPath(rows, torch.arange(12) % 2, num_classes=2).fit([0.1, 1.0])
    assert any(label.startswith(what) for label in shown), shown
