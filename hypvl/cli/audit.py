"""Audit the geometry of a model: radii, cones, order, gap and shape of its embeddings, and a verdict."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hypvl.checks import count_of
from hypvl.cli.captioned_data import add_data_arguments
from hypvl.cli.common import CommandParser, run_main, show, show_json, user_path
from hypvl.cli.numbers import real, whole
from hypvl.io.files import write_output
from hypvl.io.json_text import json_bytes

if TYPE_CHECKING:
    from hypvl.evaluation.protocol import EvaluationResult

EXAMPLES = """
examples:
  on the demo's scenes:
  hypvl audit --checkpoint-path output/demo_meru/checkpoint_final.pth
  on images and captions of your own, or on COCO:
  hypvl audit --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l --data pairs.csv
  hypvl audit --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l --data coco --json
"""
_MARKS = {"good": "+", "note": "o", "bad": "-"}


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_model_arguments()
    add_data_arguments(parser, default="demo")
    parser.add_argument("--limit", type=whole(least=2), default=5000, help="at most N pairs, evenly spread")
    parser.add_argument(
        "--aperture-factor", type=real(above=0), default=1.0, metavar="ETA",
        help="factor on the apertures of the cones, as in training",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--output", type=user_path, help="also write the JSON into this file, items included")
    parser.add_encoding_arguments()
    return parser


def main(argv: Sequence[str]) -> int:
    """Audit, print, and write."""
    args = build_parser().parse_args(argv)

    from hypvl.cli.captioned_data import captioned_set
    from hypvl.cli.loading import chosen_model, encoding_of, load_chosen, model_name, pick_device
    from hypvl.evaluation.geometry_audit import GeometryAudit

    encoding = encoding_of(args)
    dataset = captioned_set(args)
    model, content = load_chosen(args, device=pick_device(args.device))
    evaluator = GeometryAudit(
        dataset, limit=args.limit, aperture_factor=args.aperture_factor, encoding=encoding
    )
    result = evaluator(model)
    report = {
        **chosen_model(args, content),
        "data": args.data,
        "verdict": result.meta["verdict"],
        "findings": result.meta["findings"],
        "metrics": result.metrics,
        "meta": {key: value for key, value in result.meta.items() if key not in ("verdict", "findings")},
    }
    if args.output is not None:
        write_output(args.output, json_bytes({**report, "items": result.items}, indent=1), flag="--output")
    if args.json:
        show_json(report)
    else:
        _print(result, title=f"{model_name(args)} on {args.data}, {result.meta['pairs']} pairs")
        if args.output is not None:
            show(args.output)
    return 0


def _print(result: "EvaluationResult", *, title: str) -> None:
    from hypvl.report.tables import print_legend, print_table, rich_table

    rows = [(name, f"{value:.4g}") for name, value in result.metrics.items()]
    print_table(rich_table(rows, header=("number", "value"), title=title, text_columns=1))
    print_legend([f"verdict: {result.meta['verdict']}"])
    print_legend(
        [f"{_MARKS[finding['level']]} {finding['text']}" for finding in result.meta["findings"]], indent=2
    )
    if result.meta["unreadable"]:
        show(
            f"{count_of(result.meta['unreadable'], 'image')} cannot be read; the first: "
            f"{result.meta['unreadable_first'][0]}"
        )


if __name__ == "__main__":
    raise SystemExit(run_main(main))
