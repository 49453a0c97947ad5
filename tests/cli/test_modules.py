"""Every command is called three ways: hypvl train, python scripts/train.py, python -m hypvl.cli.train."""

import json
import runpy
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import hypvl.cli
from hypvl.cli import registry
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


@pytest.mark.parametrize("command", commands().values(), ids=list(commands()))
def test_every_command_helps_with_examples(command: registry.Command) -> None:
    parser = command.load().build_parser()
    text = parser.format_help()
    assert " ".join(command.summary.split()) in " ".join(text.split())
    examples = text.rpartition("examples:")[2]
    assert f"hypvl {command.name}" in examples or f"hypvl {command.file_name}" in examples
    assert "python scripts/" not in text
    undescribed = [action.option_strings for action in parser._actions if action.help is None]
    assert not undescribed


def test_help_of_every_command_is_light(tmp_path: Path) -> None:
    """All of them in one fresh process: of installed packages they import hypvl and loguru alone."""
    script = (
        "import contextlib, io, json, sys\n"
        "from hypvl.cli import registry\n"
        "used = {}\n"
        "for name in registry.commands():\n"
        "    imported = set(sys.modules)\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        registry.dispatch([name, '--help'])\n"
        "    used[name] = sorted({module.partition('.')[0] for module in set(sys.modules) - imported})\n"
        "print(json.dumps(used))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    used = json.loads(done.stdout)
    assert set(used) == set(commands())
    installed = set(packages_distributions()) - {"hypvl", "loguru"}
    heavy = {name: sorted(set(imported) & installed) for name, imported in used.items()}
    assert not {name: packages for name, packages in heavy.items() if packages}
