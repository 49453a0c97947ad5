"""The commands of hypvl: every module of this folder that has a ``main``, found and described without importing it.

``hypvl traverse`` runs ``main`` of image_traversals.py, and so does ``hypvl image-traversals``. A new module is a
command as soon as its file is there.
"""

import ast
import importlib
import re
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from hypvl import __version__
from hypvl.checks import closest, short
from hypvl.cli.common import called_as, run_main, show
from hypvl.errors import ConfigError

#: Commands whose file has a longer name. The file's name with dashes works, too.
SHORT_NAMES = {
    "image_traversals": "traverse",
    "image_interpolations": "interpolate",
    "extract_embeddings": "extract",
    "make_hard_negatives": "hard-negatives",
    "make_demo_data": "demo-data",
    "summarize_results": "summarize",
}
#: Purposes and their commands, in the order of ``hypvl --help``; commands that stand nowhere here come last.
GROUPS = {
    "start": ("demo", "doctor", "recipes", "new", "docs", "completion"),
    "train": ("train", "cache-teacher", "diff", "chaos"),
    "evaluate": ("evaluate", "summarize", "fit-standardization", "elevater-submission"),
    "look at a model": ("report", "audit", "traverse", "interpolate", "rank-by-root", "radius-histograms"),
    "use a model elsewhere": ("extract", "export", "export-index", "convert"),
    "prepare data": ("gather-pairs", "prepare-grit", "hard-negatives", "convert-hard-negatives", "demo-data"),
}
OTHERS = "more"
EXAMPLES = """
examples:
  hypvl demo
  hypvl train --config meru_vit_b --num-gpus 8 --output-dir output/meru_vit_b
  hypvl evaluate --config datacomp --checkpoint-path output/meru_vit_b
  hypvl traverse --image-path photo.jpg --checkpoint-path output/meru_vit_b
  torchrun --nproc-per-node 8 -m hypvl train --config meru_vit_b
"""
_MAIN = re.compile(r"^def main\(", re.M)


@dataclass(frozen=True)
class Command:
    """One command: what it is called, the module it is in, what it does in one line."""

    name: str
    module: str
    summary: str

    @property
    def file_name(self) -> str:
        """The name of the module's file with dashes, which calls it, too."""
        return self.module.replace("_", "-")

    def load(self) -> ModuleType:
        """Import the module; it has ``main(argv) -> int``."""
        return importlib.import_module(f"hypvl.cli.{self.module}")


@cache
def commands() -> dict[str, Command]:
    """Every command by its name, in the order of :data:`GROUPS`.

    Example:
        >>> commands()["traverse"].module
        'image_traversals'
    """
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if _MAIN.search(text):
            name = SHORT_NAMES.get(path.stem, path.stem.replace("_", "-"))
            found[name] = Command(name, path.stem, _summary(text))
    order = [name for names in GROUPS.values() for name in names if name in found]
    return {name: found[name] for name in (*order, *(name for name in found if name not in order))}


def find(name: str) -> Command | None:
    """The command of a name, or of the name of its file with dashes or underscores; None if there is none."""
    known = commands()
    by_file = {command.file_name: command for command in known.values()}
    return known.get(name) or by_file.get(name.replace("_", "-"))


def help_text(width: int | None = None) -> str:
    """What ``hypvl --help`` prints, in lines of at most ``width`` columns (default: the terminal's, at most 110)."""
    columns = min(shutil.get_terminal_size().columns, 110) if width is None else width
    lines = [
        "usage: hypvl COMMAND ...",
        "",
        *textwrap.wrap(
            "Train, evaluate and explore hyperbolic and Euclidean vision-language models.", columns
        ),
    ]
    known = commands()
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, OTHERS: tuple(name for name in known if name not in grouped)}
    indent = 2 + max(map(len, known)) + 2
    for title, names in groups.items():
        present = [known[name] for name in names if name in known]
        if present:
            lines += ["", f"{title}:"]
        for command in present:
            lines += textwrap.wrap(
                command.summary, columns,
                initial_indent=f"  {command.name}".ljust(indent), subsequent_indent=" " * indent,
            )  # fmt: skip
    lines += [
        "",
        "hypvl COMMAND --help shows the flags and examples of a command.",
    ]
    return "\n".join([*lines, EXAMPLES.rstrip()]) + "\n"


def dispatch(argv: Sequence[str]) -> int:
    """Run the command that the first word names with the other words, and return its exit code.

    Raises:
        ConfigError: for a word that names no command; the closest one is named.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        show(*help_text().splitlines())
        return 0 if argv else ConfigError.exit_code
    if argv[0] in ("-V", "--version"):
        show(f"hypvl {__version__}")
        return 0
    command = find(argv[0])
    if command is None:
        raise ConfigError(_unknown(argv[0]))
    with called_as(f"hypvl {command.name}"):
        code: int = command.load().main(argv[1:])
    return code


def run() -> int:
    """The console script ``hypvl``: :func:`dispatch` on the words typed, errors as one line."""
    return run_main(dispatch)


def _summary(text: str) -> str:
    lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    return lines[0] if lines else ""


def _unknown(word: str) -> str:
    known = [*commands(), *(command.file_name for command in commands().values())]
    near = closest(word.replace("_", "-"), known, cutoff=0.0 if len(word) > 2 else 0.6)
    hint = f"; the closest is {near}" if near else ""
    return f"hypvl has no command {short(word)}{hint}; hypvl --help lists all."
