"""Download a list of captions and web addresses: TAR shards to train on, or images and a table."""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hypvl.checks import count_of
from hypvl.cli.common import CommandParser, run_main, show, user_path
from hypvl.cli.engine import add_engine_arguments, engine_of, report_failed
from hypvl.cli.numbers import real, whole
from hypvl.io.progress import terminal_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypvl.data.gather.run import Plan, Summary

EXAMPLES = """
examples:
  hypvl gather-pairs Train_GCC-training.tsv --output-dir datasets/cc3m --allow-http
  hypvl gather-pairs pairs.parquet --output-dir datasets/mine --image-size 256 --workers 4
  hypvl gather-pairs Train_GCC-training.tsv --output-dir datasets/cc100k --subset 100000 --seed 0 --allow-http
  hypvl gather-pairs pairs.csv --output-dir datasets/mine --layout folder

The same command continues after an interruption: finished shards are not downloaded again. Several machines may share
the output folder. hypvl docs data says how lists are read and how to train on the result.
"""
_LINE_SECONDS = 30.0


def build_parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "list", type=user_path, metavar="LIST",
        help="caption TAB address without a header (Conceptual Captions); CSV, TSV, JSONL or Parquet with columns",
    )  # fmt: skip
    parser.add_argument("--output-dir", type=user_path, required=True, help="folder of the shards")
    parser.add_argument("--url-column", help="column of the address (default: url, URL or image_url)")
    parser.add_argument(
        "--caption-column", help="column of the caption (default: title, caption, text or TEXT)"
    )
    parser.add_argument(
        "--separator", help="between columns (default: TAB, comma or semicolon, as in the header)"
    )
    parser.add_argument(
        "--quoting", choices=("minimal", "none"), default="minimal", help="whether fields may be quoted"
    )
    parser.add_argument(
        "--layout", choices=("tar", "folder"), default="tar",
        help="TARs of jpg, txt and json; or a folder of images and the table pairs.tsv (filepath, title)",
    )  # fmt: skip
    parser.add_argument(
        "--subset", type=whole(least=1), metavar="N", help="only N rows, drawn by --seed, the same every time"
    )
    parser.add_argument("--seed", type=whole(least=0), default=0, help="of the subset")
    parser.add_argument("--per-shard", type=whole(least=1), default=5000, metavar="N", help="rows of a shard")
    images = parser.add_argument_group("images")
    images.add_argument(
        "--image-size", type=whole(least=1), default=384, metavar="PIXELS",
        help="shorter side to which larger images are reduced; none is enlarged",
    )  # fmt: skip
    images.add_argument(
        "--quality", type=whole(least=1, most=100), default=95, help="of the JPEGs written, 1 to 100"
    )
    images.add_argument(
        "--min-side", type=whole(least=1), default=1, metavar="PIXELS", help="shorter side of the least image"
    )
    images.add_argument(
        "--max-aspect-ratio",
        type=real(least=1),
        metavar="RATIO",
        help="leave out longer images (ITRA: 3); default: none",
    )
    net = parser.add_argument_group("network")
    net.add_argument("--threads", type=whole(least=1), default=64, help="downloads at once, in each process")
    net.add_argument(
        "--per-host", type=whole(least=1), default=4, help="downloads at once from one host, in each process"
    )
    net.add_argument("--timeout", type=real(above=0), default=10.0, metavar="SECONDS", help="without a byte")
    net.add_argument(
        "--attempts", type=whole(least=1), default=3, help="of each address, after failures that may pass"
    )
    net.add_argument(
        "--max-megabytes", type=real(above=0), default=50.0, metavar="MB", help="larger files are refused"
    )
    net.add_argument(
        "--allow-http", action="store_true",
        help="fetch http:// addresses, too: anybody on the way can change what comes (default: counted as failed)",
    )  # fmt: skip
    add_engine_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and gather what is not gathered yet; 1 when a shard could not be made."""
    args = build_parser().parse_args(argv)
    engine = engine_of(args)

    from hypvl.data.gather.run import TABLE, gather_pairs  # torch, not needed for --help

    plan = _plan(args)
    with _progress(quiet=args.quiet) as (ticked, made):
        summary = gather_pairs(
            plan,
            args.output_dir,
            engine=engine,
            claim_minutes=args.claim_minutes,
            on_tick=ticked,
            on_shard=made,
        )
    if not args.quiet:
        show(*lines_of(summary))
        if plan.layout == "folder" and (args.output_dir / TABLE).exists():
            show(f"table: {args.output_dir / TABLE}")
    return report_failed(summary.failed, summary.shards + len(summary.failed), what="shards")


def _plan(args: argparse.Namespace) -> "Plan":
    from hypvl.data.gather.fetch import FetchOptions
    from hypvl.data.gather.pair_list import ListOptions
    from hypvl.data.gather.run import Plan
    from hypvl.data.gather.shard import ImageSettings

    source = ListOptions(args.list, args.url_column, args.caption_column, args.separator, args.quoting)
    return Plan(
        source,
        ImageSettings(args.image_size, args.quality, args.min_side, args.max_aspect_ratio),
        FetchOptions(
            args.threads,
            args.per_host,
            args.timeout,
            args.attempts,
            max(1, round(args.max_megabytes * 1e6)),
            args.allow_http,
        ),
        layout=args.layout,
        per_shard=args.per_shard,
        subset=args.subset,
        seed=args.seed,
    )


def lines_of(summary: "Summary") -> list[str]:
    """The counts by reason, a line each."""
    share = f" ({summary.written / summary.pairs:.1%})" if summary.pairs else ""
    lines = [
        f"{summary.written:,} of {summary.pairs:,} pairs written{share}, {count_of(summary.shards, 'shard')}"
    ]
    width = max((len(reason) for reason in summary.reasons), default=0)
    lines += [f"  {reason:{width}}  {count:,}" for reason, count in summary.reasons.most_common()]
    return lines + ["each failed address: failures/*.jsonl in the output folder"] * bool(summary.reasons)


@contextmanager
def _progress(*, quiet: bool) -> "Iterator[tuple[Callable[[int], None], Callable[[Summary, int], None]]]":
    """A bar on a terminal; elsewhere a line every half minute."""
    import sys

    state: dict[str, Any] = {"pairs": 0, "text": "", "done": 0, "total": 1, "printed": time.monotonic()}
    with terminal_bar("pairs", unit="share", shown=not quiet) as move_bar:

        def show_state() -> None:
            text = f"{state['pairs']:,} pairs tried; {state['text']}".rstrip("; ")
            move_bar(state["done"], state["total"], text)
            if not quiet and not sys.stderr.isatty() and time.monotonic() - state["printed"] > _LINE_SECONDS:
                state["printed"] = time.monotonic()
                show(text, file=sys.stderr)

        def ticked(pairs: int) -> None:
            state["pairs"] = pairs
            show_state()

        def made(summary: "Summary", total: int) -> None:
            done = summary.shards + len(summary.failed)
            state.update(
                done=done, total=total, text=f"{done:,}/{total:,} shards, {summary.written:,} pairs written"
            )
            show_state()

        yield ticked, made


if __name__ == "__main__":
    raise SystemExit(run_main(main))
