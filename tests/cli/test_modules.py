"""Every command is called three ways: hypvl train, python scripts/train.py, python -m hypvl.cli.train."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import hypvl.cli
from hypvl.cli.registry import commands

FOLDER = Path(hypvl.cli.__file__).parent
SCRIPTS = FOLDER.parents[1] / "scripts"
COMMANDS = sorted(command.module for command in commands().values())


def test_every_command_has_a_script_and_every_script_a_command() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in SCRIPTS.glob("*.py")}
    assert {name for name, text in texts.items() if "hypvl.cli" in text} == set(COMMANDS)
    for name in COMMANDS:
        assert f"from hypvl.cli.{name} import main\n" in texts[name]
        assert texts[name].endswith('if __name__ == "__main__":\n    raise SystemExit(run_main(main))\n')


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
