"""Draw the demo data: handwritten digits and scenes, as training shards and evaluation splits."""

from collections.abc import Sequence
from pathlib import Path

from hypvl.cli.common import CommandParser, run_main, show, user_path
from hypvl.cli.numbers import whole
from hypvl.errors import DataError

EXAMPLES = """
examples:
  hypvl demo-data
  hypvl demo-data --output-dir /data/demo --num-train 12000 --seed 1
"""


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "--output-dir", type=user_path, default=Path("datasets/demo"), help="folder to create"
    )
    parser.add_argument("--seed", type=whole(least=0), default=0, help="seed of the drawings")
    parser.add_argument("--num-train", type=whole(least=12), default=6000, help="training scenes")
    parser.add_argument("--num-test", type=whole(least=4), default=1000, help="test scenes")
    parser.add_argument(
        "--num-digits", type=whole(least=100, most=1797), default=1797, help="handwritten digits, of 1,797 there are"
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    return parser


def main(argv: Sequence[str]) -> int:
    """Parse the flags and build; a second call with the same flags does nothing."""
    args = build_parser().parse_args(argv)

    from hypvl.data.demo.build import DemoArguments, make_demo_data  # numpy and PIL, not needed for --help

    def report(line: str) -> None:
        if not args.quiet:
            show(line)

    arguments = DemoArguments(
        seed=args.seed, num_train=args.num_train, num_test=args.num_test, num_digits=args.num_digits
    )
    try:
        written = make_demo_data(args.output_dir, arguments, progress=report)
    except OSError as error:
        raise DataError(
            f"--output-dir: {args.output_dir} cannot be written ({error.strerror or error}); "
            "name another folder."
        ) from error
    report(f"{args.output_dir}: {'written' if written else 'up to date'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main))
