"""List the pages of the documentation, or print one."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hypvl.checks import closest
from hypvl.cli.common import CommandParser, run_main, show
from hypvl.errors import ConfigError, MissingDataError

EXAMPLES = """
examples:
  hypvl docs
  hypvl docs training | less
  hypvl docs datasets                where data sets come from, and the folders they go to
  hypvl docs benchmarks/composition
"""
_PACKAGE_FOLDER = Path(__file__).resolve().parents[1]
#: The page that lies beside the data sets of a checkout.
DATASETS = "datasets"


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument("page", nargs="?", metavar="PAGE", help="such as training, or docs/training.md")
    parser.add_argument("--paths", action="store_true", help="print the files instead, one a line")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the names and headings of all pages, or the text of one."""
    args = build_parser().parse_args(argv)
    found = pages()
    if args.page is not None:
        name = _named(args.page, found)
        found = {name: found[name]}
    if args.paths:
        show(*found.values())
        return 0
    if args.page is not None:
        page = found[name].read_text(encoding="utf-8")
        sys.stdout.write(page)  # a text of ours, in lines of any length
        return 0
    from hypvl.report.tables import print_table, rich_table

    print_table(rich_table([(name, _heading(file)) for name, file in found.items()], header=("page", "")))
    return 0


def pages() -> dict[str, Path]:
    """Every page by its name, sorted: those of the checkout, or those that a wheel holds as ``hypvl/docs/``.

    Raises:
        MissingDataError: there are none.
    """
    checkout = _PACKAGE_FOLDER.parent
    if (checkout / "setup.py").is_file() and (checkout / "docs").is_dir():
        folder, datasets = checkout / "docs", checkout / "datasets" / "README.md"
    else:
        folder, datasets = _PACKAGE_FOLDER / "docs", _PACKAGE_FOLDER / "docs" / "datasets" / "README.md"
    files = sorted(folder.rglob("*.md"))
    found = {file.relative_to(folder).with_suffix("").as_posix(): file for file in files if file != datasets}
    if datasets.is_file():
        found[DATASETS] = datasets
    if not found:
        raise MissingDataError(f"{folder}: holds no pages; install hypvl anew.")
    return dict(sorted(found.items()))


def _named(given: str, known: dict[str, Path]) -> str:
    """The page that a name, the end of one, or a path as messages write it (``docs/data.md#tar-shards``) means."""
    name = given.partition("#")[0].removeprefix("docs/").removesuffix(".md").removesuffix("/README")
    ends = [page for page in known if page == name or page.endswith(f"/{name}")]
    if ends:
        return min(ends, key=len)
    near = closest(name, known)
    hint = f"; the closest is {near}" if near else ""
    raise ConfigError(f"PAGE: there is no page {given!r}{hint}; hypvl docs lists all.")


def _heading(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


if __name__ == "__main__":
    raise SystemExit(run_main(main))
