"""docs/commands.md: its tables of commands, exit codes and environment variables say what is so."""

import argparse
import errno
import re
import signal
import sys
from collections.abc import Iterator, Sequence

import pytest

import hypvl.__main__
from hypvl.cli.common import INTERRUPTED, UNREAD, run_main
from hypvl.cli.numbers import Number
from hypvl.cli.registry import commands
from hypvl.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingDataError,
    StalledDataError,
    StoppedError,
    UserError,
)
from hypvl.training.loop import exit_code
from tests.test_house import ROOT

PAGE = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
CODES = {
    "an error of the user": (UserError("x"), 1),
    "a wrong config": (ConfigError("x"), 2),
    "broken data": (DataError("x"), 1),
    "missing data": (MissingDataError("x"), 1),
    "a broken checkpoint": (CheckpointError("x"), 1),
    "a full disk": (OSError(errno.ENOSPC, "full"), 1),
    "no permission": (PermissionError(errno.EACCES, "denied"), 1),
    "Ctrl-C": (KeyboardInterrupt(), INTERRUPTED),
    "data that do not come": (StalledDataError("no batch"), 75),
    "asked to stop": (StoppedError("saved", exit_code(signal.SIGTERM)), 143),
    "without its terminal": (StoppedError("saved", exit_code(signal.SIGHUP)), 129),
    "asked to stop by SIGUSR1": (StoppedError("saved", exit_code(signal.SIGUSR1)), 138),
}


@pytest.mark.parametrize("name", CODES)
def test_each_error_has_its_exit_code_and_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, code = CODES[name]

    def main(argv: Sequence[str]) -> int:
        raise error

    assert run_main(main, []) == code
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1


def test_ctrl_c_while_modules_are_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        def find_spec(self, *_: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "hypvl.cli.registry")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert hypvl.__main__.main() == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_flags_that_are_wrong_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands().values():
        with pytest.raises(SystemExit) as end:
            command.load().build_parser().parse_args(["--no-such-flag"])
        assert end.value.code == 2, command.name
    assert "--no-such-flag" in capsys.readouterr().err


def test_numbers_out_of_range_end_with_2_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    checked = 0
    for command in commands().values():
        for flag, number in _impossible(command.load().build_parser()):
            message = f"error: {flag}: got {number}"
            code = run_main(
                lambda argv, flag=flag, number=number: _parsed(argv, flag, number), [command.name]
            )
            assert code == 2, (command.name, flag, number)
            assert capsys.readouterr().err.startswith(message), (command.name, flag)
            checked += 1
    assert checked > 50


def _impossible(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """A number out of the range of each flag that takes numbers; every one must say its range."""
    for action in parser._actions:
        assert action.type not in (int, float), f"{parser.prog} {action.dest}: see hypvl/cli/numbers.py"
        if isinstance(action.type, Number) and action.help != argparse.SUPPRESS:
            yield action.option_strings[0], "-1" if action.type.is_whole else "nan"
            if action.type.most is not None:
                most = action.type.most + 1
                yield action.option_strings[0], str(most if action.type.is_whole else float(most))


def _parsed(argv: Sequence[str], flag: str, number: str) -> int:
    parser = commands()[argv[0]].load().build_parser()
    for action in parser._actions:
        action.required = False
    for group in parser._mutually_exclusive_groups:
        group.required = False
    positional = [action for action in parser._actions if not action.option_strings]
    parser.parse_args(["x" for action in positional if action.nargs != "*"] + [flag, number])
    return 0


def test_the_table_lists_the_exit_codes_there_are() -> None:
    rows = re.findall(r"^\| (\d+) \|", PAGE, re.M)
    assert sorted(map(int, rows)) == sorted({0, UNREAD, *(code for _, code in CODES.values())})


def test_the_table_lists_every_command_with_its_summary() -> None:
    rows = dict(re.findall(r"^\| `hypvl ([\w-]+)` \| (.+?) \|$", PAGE, re.M))
    assert rows == {name: command.summary.rstrip(".") for name, command in commands().items()}


def test_the_table_lists_every_environment_variable_of_hypvl() -> None:
    named = set(re.findall(r"HYPVL_[A-Z_]+", PAGE))
    read = set()
    for path in (ROOT / "hypvl").rglob("*.py"):
        read |= set(re.findall(r'"(HYPVL_[A-Z_]+)"', path.read_text(encoding="utf-8")))
    assert read == named and len(read) >= 3
