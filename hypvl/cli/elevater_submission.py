"""Merge predictions by seed and pack them for ELEVATER's leader board."""

from collections.abc import Sequence
from pathlib import Path

from hypvl.cli.common import CommandParser, run_main, show, user_path
from hypvl.errors import DataError

EXAMPLES = """
examples:
  hypvl evaluate --config elevater --checkpoint-path X.pth \\
      predictions.folder=output/x/predictions predictions.model_name=X
  hypvl elevater-submission --predictions output/x/predictions --output-dir output/x/submission
"""


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "--predictions", type=user_path, required=True, metavar="DIR",
        help="folder with a folder per protocol",
    )  # fmt: skip
    parser.add_argument(
        "--output-dir", type=user_path, required=True, metavar="DIR", help="where the ZIPs go"
    )
    parser.add_argument(
        "--protocol", metavar="NAME,...", help="only these, such as few_shot_5 (default: all)"
    )
    parser.add_argument("--model-name", metavar="NAME", help="as it is to appear (default: as in the files)")
    return parser


def main(argv: Sequence[str]) -> int:
    """One ZIP per protocol; 1 when sets are missing, after all have been written."""
    args = build_parser().parse_args(argv)
    folders = _folders(args.predictions, args.protocol)

    from hypvl.evaluation.prediction_files import LEADERBOARD_NAMES
    from hypvl.report.elevater import write_submission

    incomplete = 0
    for folder in folders:
        submission = write_submission(
            folder,
            args.output_dir / f"{folder.name}.zip",
            model_name=args.model_name,
            expected=sorted(LEADERBOARD_NAMES.values()),
        )
        counts = sorted({len(seeds) for seeds in submission.seeds.values()})
        show(f"{submission.path}: {len(submission.seeds)} sets, {'/'.join(map(str, counts))} seeds each")
        if submission.missing:
            incomplete += 1
            show(f"  missing: {', '.join(submission.missing)}")
    return 1 if incomplete else 0


def _folders(root: Path, only: str | None) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"--predictions: {root} is not a folder; name the one given as predictions.folder.")
    folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}
    names = list(folders) if only is None else [name.strip() for name in only.split(",")]
    missing = [name for name in names if name not in folders]
    if missing or not names:
        raise DataError(
            f"{root}: has no {', '.join(missing) or 'folder of a protocol'}; found {', '.join(folders) or 'nothing'}."
        )
    return [folders[name] for name in names]


if __name__ == "__main__":
    raise SystemExit(run_main(main))
