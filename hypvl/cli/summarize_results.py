"""Put results files together: a row per checkpoint, a column per set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hypvl.cli.common import CommandParser, run_main, show, user_path
from hypvl.errors import DataError
from hypvl.io.files import write_output

if TYPE_CHECKING:
    from hypvl.report.summary import SummaryRow

EXAMPLES = """
examples:
  hypvl summarize output
  one protocol of ELEVATER, as a Markdown table:
  hypvl summarize output --protocol few_shot_5 --markdown
  as DataComp's leaderboard reads them:
  hypvl summarize output/meru_vit_b --datacomp output/meru_vit_b/eval_results.jsonl
"""
_WIDE = 6  # more sets than this are printed as rows


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "paths", nargs="+", type=user_path, metavar="PATH", help="results files, or folders of them"
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="for all sets (default: each evaluation's main metric)"
    )
    parser.add_argument("--protocol", metavar="NAME", help="only evaluations named <set>/NAME")
    parser.add_argument("--sets", metavar="NAME,...", help="columns, in this order (default: all)")
    parser.add_argument("--output", type=user_path, help="the CSV (default: summary.csv in the first folder)")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument(
        "--datacomp", type=user_path, metavar="FILE",
        help="also write the results of the one checkpoint as DataComp's eval_results.jsonl",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the table and what is missing, and write the CSV."""
    args = build_parser().parse_args(argv)

    from hypvl.report.datacomp import datacomp_lines
    from hypvl.report.summary import read_folder, summarize
    from hypvl.report.tables import print_legend

    contents = {path.resolve(): content for root in args.paths for path, content in read_folder(root)}
    lines = "" if args.datacomp is None else datacomp_lines(list(contents.values()), metric=args.metric)
    summary = summarize(
        list(contents.values()),
        metric=args.metric,
        protocol=args.protocol,
        sets=None if args.sets is None else [name.strip() for name in args.sets.split(",")],
    )
    if not summary.rows:
        raise DataError(
            f"{', '.join(map(str, args.paths))}: no evaluation is called as --protocol or --sets ask for."
        )
    first = args.paths[0]
    path = (first if first.is_dir() else first.parent) / "summary.csv" if args.output is None else args.output
    _show(summary.cells(), markdown=args.markdown)
    notes = [f"{name}: {metric}" for name, metric in summary.metrics.items()]
    for row in summary.rows:
        if row.missing:
            reasons = ", ".join(f"{name} ({why})" for name, why in row.missing.items())
            notes.append(f"{_label(row)}: no result for {reasons}")
        if len(row.units) > 1:
            units = "; ".join(f"{unit}: {', '.join(names)}" for unit, names in row.units.items())
            notes.append(
                f"{_label(row)}: no average of numbers in different units ({units}); choose --sets or a --metric"
            )
    print_legend(notes)
    write_output(path, summary.as_csv().encode("utf-8", "backslashreplace"), flag="--output")
    show(path)
    if args.datacomp is not None:
        write_output(args.datacomp, lines.encode(), flag="--datacomp")
        show(args.datacomp)
    return 0


def _label(row: "SummaryRow") -> str:
    return " ".join(filter(None, (row.checkpoint, row.protocol)))


def _show(table: tuple[list[str], list[list[str]]], *, markdown: bool) -> None:
    from hypvl.report.tables import markdown_table, print_table, rich_table

    header, rows = table
    text_columns = 2
    if len(header) > _WIDE + 3:
        titles = [" ".join(filter(None, row[:2])) for row in rows]
        rows = [[name, *values] for name, *values in zip(header[2:], *(row[2:] for row in rows), strict=True)]
        header, text_columns = ["set", *titles], 1
    if markdown:
        show(*markdown_table(rows, header=header, text_columns=text_columns).splitlines())
    else:
        print_table(rich_table(rows, header=header, text_columns=text_columns))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
