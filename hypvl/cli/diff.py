"""Compare two runs, checkpoints, configs or results files: what differs, and by more than its interval?"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.cli.common import CommandParser, run_main, show, show_json, system_error, user_text
from hypvl.errors import ConfigError, UserError

if TYPE_CHECKING:
    from hypvl.cli.compared import Side
    from hypvl.report.difference import MetricDifference

EXAMPLES = """
examples:
  two runs: config, provenance, last metrics, evaluation results
  hypvl diff output/meru_vit_b output/meru_4k
  two checkpoints, with their weights; two recipes
  hypvl diff output/demo_meru/checkpoint_00000500.pth output/demo_meru/checkpoint_final.pth
  hypvl diff meru_vit_b hycoclip_vit_b
exit codes: 0 the same, 1 different, 2 they cannot be compared. The time and the command of a run, its speed and its
memory are not compared.
"""
EQUAL, DIFFERENT = 0, 1
_VERDICTS = {
    "beyond": "more than the intervals",
    "within": "intervals overlap",
    "unknown": "no interval",
}


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    for name in ("first", "second"):
        parser.add_argument(
            name, type=user_text, metavar=name.upper(),
            help="folder of a run, checkpoint, config file, name of a recipe, or results file",
        )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def main(argv: Sequence[str]) -> int:
    """Compare and print; 0 where nothing differs, else 1."""
    args = build_parser().parse_args(argv)

    from hypvl.cli.compared import parts_of, read_side

    try:
        first, second = read_side(args.first), read_side(args.second)
        parts, lacking = parts_of(first, second)
    except UserError as error:  # 1 is for what differs
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(system_error(error)) from error
    found = {part: _compared(part, first, second) for part in parts}
    different = any(_is_different(difference) for difference in found.values())
    if args.json:
        show_json({
            "first": first.name,
            "second": second.name,
            "equal": not different,
            **{part: _as_data(difference) for part, difference in found.items()},
            "not_compared": lacking,
        })  # fmt: skip
    else:
        _print(found, first, second)
        for part, reason in lacking.items():
            show(f"{part}: not compared, {reason}")
        show(_summary(found) if different else "equal")
    return DIFFERENT if different else EQUAL


def _compared(part: str, first: "Side", second: "Side") -> Any:
    """What differs in one part: a list, or for weights a dict."""
    from hypvl.cli.compared import weight_differences
    from hypvl.report.difference import metric_differences, provenance_differences, result_differences
    from hypvl.training.state import config_changes

    one, two = getattr(first, part), getattr(second, part)
    if part == "weights":
        return {"iterations": [first.iteration, second.iteration], **weight_differences(one, two)}
    compare = {
        "config": config_changes,
        "provenance": provenance_differences,
        "metrics": metric_differences,
        "results": result_differences,
    }
    return compare[part](one, two)


def _is_different(difference: Any) -> bool:
    if isinstance(difference, Mapping):
        names = ("differing", "other_shapes", "only_first", "only_second")
        return any(difference[name] for name in names) or len(set(difference["iterations"])) > 1
    return bool(difference)


def _as_data(difference: Any) -> Any:
    if isinstance(difference, Mapping):
        return difference
    return [
        {"key": item.key, "first": item.saved, "second": item.new, "resumable": item.allowed}
        if hasattr(item, "allowed")
        else item.as_data()
        for item in difference
    ]


def _print(found: Mapping[str, Any], first: "Side", second: "Side") -> None:
    from hypvl.report.tables import print_table, rich_table

    names = _headings(first.name, second.name)
    for part, difference in found.items():
        if not _is_different(difference):
            show(f"{part}: equal")
            continue
        if part == "weights":
            rows, header = _weight_rows(difference), ["weights", ""]
        elif part == "results":
            rows, header = _result_rows(difference), ["evaluation", "metric", *names, "difference"]
        else:
            rows = [[item.key, *map(_cell, _values(item))] for item in difference]
            header = [part, *names]
        print_table(rich_table(rows, header=header, text_columns=len(header)))


def _headings(first: str, second: str) -> tuple[str, str]:
    """The last parts of two paths, or all of them where the last are equal."""
    short = Path(first).name, Path(second).name
    return short if short[0] != short[1] else (first, second)


def _values(item: Any) -> tuple[Any, Any]:
    return (item.saved, item.new) if hasattr(item, "allowed") else (item.first, item.second)


def _cell(value: Any) -> str:
    """A value whole, as JSON; texts without quotation marks."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _result_rows(differences: "Sequence[MetricDifference]") -> list[list[str]]:
    from hypvl.report.tables import format_value

    def shown(metric: str, value: float | None, interval: tuple[float, float] | None) -> str:
        if value is None:
            return "-"
        bounds = "" if interval is None else " to ".join(format_value(metric, bound) for bound in interval)
        return format_value(metric, value) + (f" ({bounds})" if bounds else "")

    return [
        [
            item.evaluation,
            item.metric,
            shown(item.metric, item.first, item.first_interval),
            shown(item.metric, item.second, item.second_interval),
            _VERDICTS[item.verdict] + ("" if item.same_settings else "; other settings"),
        ]
        for item in differences
    ]


def _weight_rows(difference: Mapping[str, Any]) -> list[list[str]]:
    differing = difference["differing"]
    one, two = difference["iterations"]
    rows = [
        ["iteration", _cell(one) if one == two else f"{_cell(one)} and {_cell(two)}"],
        ["tensors of other values", f"{len(differing)} of {difference['tensors']}"],
        ["largest difference", f"{difference['largest_difference']:.4g}"],
    ]
    rows += [[f"shape of {key}", f"{a} and {b}"] for key, (a, b) in difference["other_shapes"].items()]
    for name, title in (("only_first", "only in the first"), ("only_second", "only in the second")):
        rows += [[title, key] for key in difference[name]]
    return rows


def _summary(found: Mapping[str, Any]) -> str:
    """``different: config (3), results (12, 4 of them by more than their intervals)``."""
    texts = []
    for part, difference in found.items():
        if not _is_different(difference):
            continue
        if isinstance(difference, Mapping):
            texts.append(part)
            continue
        beyond = sum(getattr(item, "verdict", None) == "beyond" for item in difference)
        more = f", {beyond} of them by more than their intervals" if part == "results" else ""
        texts.append(f"{part} ({len(difference)}{more})")
    return f"different: {', '.join(texts)}"


if __name__ == "__main__":
    raise SystemExit(run_main(main))
