"""List the recipes, training and evaluation, with what each is for."""

import fnmatch
from collections.abc import Sequence

from hypvl.cli.common import CommandParser, run_main, show, show_json
from hypvl.errors import ConfigError

EXAMPLES = """
examples:
  hypvl recipes
  hypvl recipes meru
  hypvl recipes 'train_*_demo' --paths
"""
NOTE = "--config takes a name with or without train_ or eval_; hypvl new NAME --from RECIPE starts one of your own."


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "pattern", nargs="?", metavar="PATTERN", help="only names with this in them, or that match a glob"
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--paths", action="store_true", help="print the files instead, one a line")
    shape.add_argument("--json", action="store_true", help="print name, purpose and file as JSON")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print a line for each; a pattern that none matches is an error."""
    args = build_parser().parse_args(argv)

    from hypvl.config.recipes import purpose, recipes

    found = {name: file for name, file in recipes().items() if _matches(name, args.pattern)}
    if not found:
        raise ConfigError(
            f"PATTERN: no recipe matches {args.pattern!r}; hypvl recipes lists all."
            if args.pattern
            else "recipes: none are installed and ./configs holds none; install hypvl anew, or name a file."
        )
    if args.json:
        show_json(
            [{"name": name, "purpose": purpose(file), "file": str(file)} for name, file in found.items()]
        )
        return 0
    if args.paths:
        show(*found.values())
        return 0
    from hypvl.report.tables import print_table, rich_table

    print_table(
        rich_table([(name, purpose(file)) for name, file in found.items()], header=("recipe", "what for"))
    )
    show(NOTE)
    return 0


def _matches(name: str, pattern: str | None) -> bool:
    if pattern is None:
        return True
    return fnmatch.fnmatchcase(name, pattern) if set(pattern) & set("*?[") else pattern in name


if __name__ == "__main__":
    raise SystemExit(run_main(main))
