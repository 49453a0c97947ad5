"""Every command also runs as a module: python -m hypvl.cli.train."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import hypvl.cli

FOLDER = Path(hypvl.cli.__file__).parent
COMMANDS = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if any(
        isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(path.read_text()).body
    )
)


def test_every_script_is_a_command() -> None:
    scripts = {path.stem for path in (FOLDER.parents[1] / "scripts").glob("*.py")}
    assert set(COMMANDS) <= scripts and len(COMMANDS) >= 18


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_help_of_a_module_is_printed(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It printed nothing and ended with 0."""
    monkeypatch.setattr("sys.argv", [str(FOLDER / f"{name}.py"), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"hypvl.cli.{name}", run_name="__main__")
    assert end.value.code == 0
    assert f"usage: {name}.py" in capsys.readouterr().out


def test_errors_of_a_module_are_exit_codes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hypvl.cli.train", "--config", "nowhere.py"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: config nowhere.py does not exist")
