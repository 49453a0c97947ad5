"""Convert CE-CLIP's published hard negatives (pickled .npy) to JSONL, which training reads."""

import glob
from collections.abc import Sequence
from pathlib import Path

from hypvl.cli.common import CommandParser, run_main, show, user_path, user_text
from hypvl.errors import ConfigError

EXAMPLES = """
examples:
  hypvl convert-hard-negatives --input generated_data/*.npy --output datasets/coco/negatives_train2014.jsonl

The files are read as data: a file that would run code is refused.
"""


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "--input", type=user_text, nargs="+", required=True, metavar="NPY", help=".npy files or globs"
    )
    parser.add_argument("--output", type=user_path, required=True, metavar="JSONL", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the output where there is one")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser


def main(argv: Sequence[str]) -> int:
    """Parse the flags and convert."""
    args = build_parser().parse_args(argv)
    inputs = _expand(args.input)
    if args.output.exists() and not args.overwrite:
        raise ConfigError(f"--output: {args.output} exists; give another name, or --overwrite to replace it.")

    from hypvl.negatives.convert import convert_negatives  # torch and numpy, not needed for --help

    def report(path: Path, rows: int) -> None:
        if not args.quiet:
            show(f"{path}: {rows:,} rows so far")

    rows = convert_negatives(inputs, args.output, progress=report)
    if not args.quiet:
        show(f"{args.output}: {rows:,} rows")
    return 0


def _expand(entries: Sequence[str]) -> list[Path]:
    paths: list[Path] = []
    for entry in entries:
        names = [entry] if Path(entry).is_file() else sorted(glob.glob(entry))  # noqa: PTH207 (absolute patterns)
        files = [Path(name) for name in names if Path(name).is_file()]
        if not files:
            raise ConfigError(f"--input: {entry} names no file; check the path.")
        paths += files
    return paths


if __name__ == "__main__":
    raise SystemExit(run_main(main))
