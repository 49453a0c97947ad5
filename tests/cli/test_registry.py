"""`hypvl COMMAND`: every module of hypvl/cli with a main is found by itself, cheaply, and called by its name."""

import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from hypvl.cli import common, registry
from hypvl.cli.common import run_main

# Installed packages that Python itself may import as it starts, for an editable install and the like.
AT_START = {"_distutils_hack", "sitecustomize"}


def test_names_are_short_and_the_names_of_the_files_still_work() -> None:
    known = registry.commands()
    assert {
        "train",
        "evaluate",
        "traverse",
        "interpolate",
        "audit",
        "doctor",
        "extract",
        "hard-negatives",
    } <= set(known)
    for spelling in ("traverse", "image-traversals", "image_traversals"):
        assert registry.find(spelling) is known["traverse"]
    assert registry.find("common") is None
    assert all("_" not in name and command.summary[-1] in ".?" for name, command in known.items())


def test_short_names_are_of_commands() -> None:
    modules = {command.module for command in registry.commands().values()}
    assert set(registry.SHORT_NAMES) <= modules


def test_help_lists_each_command_once_in_a_group_within_the_terminal() -> None:
    text = registry.help_text(80)
    words = re.findall(r"^  ([\w-]+)", text.partition("examples:")[0], re.M)
    assert set(registry.commands()) <= set(words)
    assert [words.count(name) for name in registry.commands()] == [1] * len(registry.commands())
    assert text.index("\nprepare data:") > text.index("\ntrain:") and max(map(len, text.splitlines())) <= 80


def test_a_new_module_is_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weigh_pairs.py").write_text('"""Weigh the pairs."""\n\ndef main(argv):\n    return 0\n')
    (tmp_path / "helpers.py").write_text('"""No command."""\n')
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    registry.commands.cache_clear()
    try:
        assert registry.commands() == {
            "weigh-pairs": registry.Command("weigh-pairs", "weigh_pairs", "Weigh the pairs.")
        }
        assert f"{registry.OTHERS}:\n  weigh-pairs  Weigh the pairs.\n" in registry.help_text(80)
    finally:
        registry.commands.cache_clear()


@pytest.mark.parametrize(
    ("word", "closest"),
    [("tran", "train"), ("traversals", "traverse"), ("hard_negative", "hard-negatives")],
)
def test_an_unknown_command_names_the_closest(
    word: str, closest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(registry.dispatch, [word]) == 2
    message = capsys.readouterr().err
    assert (
        message
        == f"error: hypvl has no command {word!r}; the closest is {closest}; hypvl --help lists all.\n"
    )


def test_a_command_calls_itself_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        registry.dispatch(["image-traversals", "--help"])
    assert capsys.readouterr().out.startswith("usage: hypvl traverse [-h]")
    assert not common.CommandParser("x").prog.startswith("hypvl")  # only inside


def test_without_a_command_the_help_is_printed_and_it_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.dispatch([]) == 2
    assert registry.dispatch(["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed == 2 * registry.help_text()


def test_help_is_light(tmp_path: Path) -> None:
    """In a fresh process, from another folder: it imports hypvl and loguru alone, so that it answers at once."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "hypvl", "--help"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(registry.__file__).parents[2])},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("usage: hypvl COMMAND")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "hypvl" in imported
    assert imported & set(packages_distributions()) - AT_START - {"hypvl"} == {"loguru"}
