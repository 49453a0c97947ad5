"""Cut the boxes of raw GRIT TAR shards (img2dataset) out: one processed TAR for each raw one."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hypvl.cli.common import CommandParser, run_main, show, user_path, user_text
from hypvl.cli.engine import add_engine_arguments, engine_of
from hypvl.cli.numbers import real, whole
from hypvl.io.progress import terminal_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypvl.data.grit.prepare import Counts, Progress

EXAMPLES = """
examples:
  hypvl prepare-grit --tarfiles 'datasets/grit/raw/*.tar' --output-dir datasets/grit/processed
  hypvl prepare-grit --tarfiles '/data/grit/{00000..00099}.tar' --output-dir /data/boxes --workers 32
  in each task of a SLURM array, sbatch --array=0-99:
  hypvl prepare-grit --tarfiles '/data/grit/*.tar' --output-dir /data/boxes --engine slurm-array

The same command continues after an interruption. hypvl docs data says how to get the raw shards, hypvl docs
many_machines how many machines work in one folder.
"""
_LINE_SECONDS = 30.0


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "--tarfiles", type=user_text, nargs="+", required=True, metavar="TAR",
        help="raw TARs: paths, globs, brace lists",
    )  # fmt: skip
    parser.add_argument("--output-dir", type=user_path, required=True, help="folder of the processed TARs")
    parser.add_argument(
        "--phrases", choices=("both", "noun_chunks", "ref_exps"), default="both",
        help="boxes of noun chunks, of referring expressions, or both",
    )  # fmt: skip
    parser.add_argument(
        "--min-size", type=whole(least=1), default=16, metavar="PIXELS", help="shorter side of the least box"
    )
    parser.add_argument(
        "--min-score", type=real(least=0, most=1), default=0.0, help="least score of a box, 0 to 1"
    )
    parser.add_argument(
        "--max-bad-fraction",
        type=real(least=0, most=1),
        default=0.1,
        help="share of bad samples at which to stop",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_engine_arguments(parser, aliases=["--num-workers"], default="one for each processor")
    return parser


def main(argv: Sequence[str]) -> int:
    """Parse the flags and process what is not processed yet."""
    args = build_parser().parse_args(argv)
    if args.workers is None and args.engine != "ray":
        own = hasattr(os, "sched_getaffinity")
        args.workers = len(os.sched_getaffinity(0)) if own else os.cpu_count() or 1
    engine = engine_of(args, start_method="fork")

    from hypvl.data.grit.boxes import GritSettings  # torch and PIL, not needed for --help
    from hypvl.data.grit.prepare import prepare_grit

    settings = GritSettings(phrases=args.phrases, min_size=args.min_size, min_score=args.min_score)
    with _progress(quiet=args.quiet) as progress:
        counts = prepare_grit(
            args.tarfiles,
            args.output_dir,
            settings,
            engine=engine,
            max_bad_fraction=args.max_bad_fraction,
            claim_minutes=args.claim_minutes,
            progress=progress,
        )
    if not args.quiet:
        show(f"{summary(counts)}; counts per TAR in {args.output_dir / 'units'}")
    return 0


def summary(counts: "Counts") -> str:
    """Counts of written and dropped samples, in one line."""
    parts = [f"{counts.written:,} of {counts.samples:,} samples written with {counts.boxes:,} boxes"]
    if counts.without_box:
        parts.append(f"{counts.without_box:,} without a box left")
    for name, reasons in (("bad samples", counts.bad), ("boxes left out", counts.dropped_boxes)):
        if reasons:
            listed = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common())
            parts.append(f"{reasons.total():,} {name} ({listed})")
    return "; ".join(parts)


@contextmanager
def _progress(*, quiet: bool) -> "Iterator[Callable[[Progress], None]]":
    """A bar on a terminal; elsewhere a line every half minute."""
    with terminal_bar("raw TARs", unit="share", shown=not quiet) as move_bar:
        printed = time.monotonic()

        def update(state: "Progress") -> None:
            nonlocal printed
            text = f"{state.shards_done:,}/{state.shards_total:,} TARs, {state.counts.boxes:,} boxes"
            if state.counts.bad:
                text += f", {state.counts.bad.total():,} bad"
            move_bar(state.bytes_done, max(1, state.bytes_total), text)
            if not quiet and not sys.stderr.isatty() and time.monotonic() - printed > _LINE_SECONDS:
                printed = time.monotonic()
                show(f"{text}, {state.bytes_done / max(1, state.bytes_total):.0%}")

        yield update


if __name__ == "__main__":
    raise SystemExit(run_main(main))
