"""Every command and every piece of Python of README.md and docs/ is run (substitutions.py: with what changes).

A page is run in its own copy of a folder with miniature data: its blocks of bash by bash, in order, then its blocks of
Python, which share a namespace.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.gather.server import serving
from tests.docs import named_models
from tests.docs.blocks import ROOT, SHOWN, Block, blocks, reason_not_to_run, substituted
from tests.docs.harnesses import install_sbatch
from tests.docs.server import install
from tests.docs.substitutions import NOT_RUN, REPLACED
from tests.docs.world import make_world, write_lists_of_pairs
from tests.test_docs import PAGES

# With which `make` hands over to an inner one what a tester asked of the outer one: `make test-slow VENV=...`.
OF_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VENV", "EDITABLE", "JOBS", "DEMO"}
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# Run by tests/test_docs_extending.py, in a copy of the checkout.
ELSEWHERE = [name for name in NAMES if name.startswith("docs/extending/")]
RUN = [name for name in NAMES if name not in ELSEWHERE and any(b.language not in SHOWN for b in blocks(name))]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("docs") / "world"
    folder.mkdir()
    make_world(folder)
    with serving() as site:
        write_lists_of_pairs(folder, site.url)
        yield folder


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Iterator[Path]:
    """The folder of ``python`` and ``hypvl``, and the process behind them."""
    folder = tmp_path_factory.mktemp("bin")
    address = folder / "address"
    install(folder, address)
    install_sbatch(folder)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.docs.server", str(address)],
        cwd=ROOT,
        env={**os.environ, **named_models.environment(world)},
    )
    deadline = time.monotonic() + 300
    while not address.exists():
        assert server.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    yield folder
    server.kill()
    server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs(page: str, world: Path, programs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(world, folder, symlinks=True)
    pieces = []
    for block in blocks(page):
        if block.file is not None:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            call(["bash", "-c", script(block)], block.place, folder, programs)
        elif block.language == "python" and reason_not_to_run(block, block.text) is None:
            pieces.append((block.place, block.line, substituted(block, block.text)))
    if pieces:
        call(["python", "-c", run_pieces(pieces)], page, folder, programs)


def script(block: Block) -> str:
    """The commands of a block for bash, each shown before it runs."""
    lines = ["set -euo pipefail"]
    for command in block.commands():
        if reason_not_to_run(block, command) is None:
            lines += [
                f"echo {shell_quoted('$ ' + substituted(block, command))} >&2",
                substituted(block, command),
            ]
    return "\n".join(lines)


def shell_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def run_pieces(pieces: list[tuple[str, int, str]]) -> str:
    """Code that runs blocks in one namespace; those with a relative import as configs in configs/."""
    return (
        "import pathlib\nfrom hypvl.config import LazyConfig\nnamespace = {'__name__': 'docs'}\n"
        f"for place, line, text in {pieces!r}:\n"
        "    if 'from .' in text or 'from hypvl.recipes' in text:\n"
        "        path = pathlib.Path(f'configs/train_of_line_{line}.py'); path.write_text(text)\n"
        "        LazyConfig.load(path)\n"
        "    else:\n"
        "        exec(compile('\\n' * (line - 1) + text, place, 'exec'), namespace)\n"
    )


def call(command: list[str], place: str, folder: Path, programs: Path) -> None:
    path = [
        str(programs),
        str(Path(sys.executable).parent),
        os.environ["PATH"],
    ]  # torchrun, ray: of this environment
    outside = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    environment = {
        **outside, "PATH": ":".join(path), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [str(programs / "python"), *command[1:]] if command[0] == "python" else command
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    output = done.stdout[-2000:] + done.stderr[-6000:]
    if done.returncode:
        raise AssertionError(f"{place}: {done.returncode}\n{output}")


@pytest.mark.parametrize("page", NAMES)
def test_blocks_are_of_a_known_language_and_well_formed(page: str) -> None:
    for block in blocks(page):
        assert block.language in (*SHOWN, "bash", "python"), block.place
        if block.language == "python" and page != "docs/design.md":
            compile(block.text, block.place, "exec")


def test_each_rule_is_used_and_few_commands_are_not_run() -> None:
    pieces = [
        (block, text)
        for name in RUN
        for block in blocks(name)
        for text in ([block.text] if block.language == "python" else block.commands())
        if block.language not in SHOWN
    ]
    for rule in (*REPLACED, *NOT_RUN):
        assert rule.reason
        assert any(rule.applies(block.page, text) for block, text in pieces), (
            f"{rule}: applies nowhere; delete it"
        )
    skipped = [
        f"{block.place}: {text}" for block, text in pieces if reason_not_to_run(block, text) is not None
    ]
    assert len(skipped) <= 11 < len(pieces) / 3, "\n".join(skipped)


def test_a_block_that_fails_fails_its_page(tmp_path: Path) -> None:
    block = Block("docs/new.md", 7, "bash", "echo one\nsh -c 'exit 3' \\\n    more\necho two\n")
    with pytest.raises(AssertionError, match=r"docs/new\.md:7: 3\n") as failure:
        call(["bash", "-c", script(block)], block.place, tmp_path, tmp_path)
    assert "$ sh -c 'exit 3' more" in str(failure.value) and "two" not in str(failure.value)


def test_a_command_is_made_small_and_nothing_else() -> None:
    block = Block("docs/new.md", 1, "bash", "")
    command = "hypvl train --config meru_vit_b --num-gpus 8 --output-dir output/x train.seed=1"
    first, small = substituted(block, command).split(" && ")
    assert first == "rm -rf output/x"
    assert small.startswith(
        "hypvl train --config meru_vit_b --num-gpus 0 --output-dir output/x train.seed=1 train."
    )
    assert substituted(block, "hypvl recipes meru") == "hypvl recipes meru"
    assert substituted(block, "hypvl diff a b") == "hypvl diff a b || [ $? = 1 ]"
