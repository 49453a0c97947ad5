"""The completion script, run by a real bash."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hypvl.cli import completion
from hypvl.cli.common import run_main
from hypvl.cli.registry import commands

pytest.importorskip("shtab", reason="needs shtab: pip install 'hypvl[completion]'")
# What bash does at TAB: the words so far, the last of them being completed.
COMPLETE = """
source hypvl.bash
COMP_WORDS=(hypvl "$@"); COMP_CWORD=$#
previous=${COMP_WORDS[$((COMP_CWORD - 1))]}
_shtab_hypvl hypvl "${COMP_WORDS[$COMP_CWORD]}" "$previous"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shell")
    (folder / "hypvl.bash").write_text(completion.completion_script("bash"))
    (folder / "checkpoints").mkdir()
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["tra"], {"train", "traverse"}),
        (["train", "--num"], {"--num-gpus", "--num-machines"}),
        (["train", "--config", "meru_vit"], {"meru_vit_b", "meru_vit_l", "meru_vit_s"}),
        (["evaluate", "--checkpoint-path", "check"], {"checkpoints"}),
        (["completion", ""], {"bash", "zsh", "tcsh"}),
    ],
)
def test_bash_completes(folder: Path, typed: list[str], offered: set[str]) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE, "bash", *typed],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == offered and done.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_scripts_of_other_shells_name_every_command(shell: completion.Shell) -> None:
    script = completion.completion_script(shell)
    assert all(name in script for name in commands())


def test_the_whole_script_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert completion.main(["bash"]) == 0
    assert capsys.readouterr().out == completion.completion_script("bash")


def test_without_shtab_the_pip_command_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert run_main(completion.main, ["bash"]) == 1
    assert "pip install 'hypvl[completion]'" in capsys.readouterr().err
