"""Results as tables: every metric with its chance level beside it, for the terminal and for Markdown."""

import csv
import io
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypvl.io.redact import printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

CHANCE = "_chance"
APPROXIMATE = "approximate"
_LONGEST_CELL = 1 << 16  # characters
CSV_HEADER = ("evaluation", "status", "metric", "value", "low", "high", "chance")
_WIDEST = 1 << 16  # characters of a line that nothing else bounds
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LINE_END = re.compile(r"(?: |m[0-9;]*\[\x1b)*")  # from right to left: each character is looked at once
_NARROWEST = 10  # characters of a first column whose texts fold
HEADER = ("evaluation", "metric", "value", "95 % interval", "chance")

PERCENT = "%"
_OF_HIERARCHIES = ("hierarchical_precision", "hierarchical_recall")  # shares in [0, 1]
# Pieces of names, between underscores or at the ends; the text's, image's and group's scores of Winoground are percent,
# those of captions (clip_score ...) are not.
_IN_PERCENT = re.compile(
    r"""(?x) (?:^|_) (?:
        accuracy | recall | share | kendall | pearson | auroc | roc_auc | auc | ap | ties | precision
        | r_precision | map@r | map_11_points | average_precision | acc | p_c | p_f | min_p | f1 | purity
        | entailment | radius_order | radial_order | violation_rate | saturated_cones | clipped | flat_distortion
        | flat_top1_agreement | curv_at_bound | curv_at_floor | linear_separability | seed_std
        | jaccard | spearman | mrr | ndcg | map | aupr | fpr95 | prompt_std | prompt_range | prompt_agreement
    ) (?:_|@|$) | ^(?:text|image|group)_score(?:_(?!(?:kendall|pearson))|$)"""
)


@dataclass(frozen=True)
class Row:
    """One metric of an evaluation."""

    evaluation: str
    metric: str
    value: float  # percent for accuracies, recalls and shares
    chance: float | None  # what guessing gives, in the same unit; None where it says nothing
    # (low, high) of the bootstrap; None where the metric has none.
    interval: tuple[float, float] | None = None
    approximate: bool = False  # whether the set is another than the published one (``meta.approximate``)

    def cells(self) -> tuple[str, str, str, str, str]:
        """As strings; missing intervals and chance levels are empty, what is approximate says so."""
        chance = "" if self.chance is None else format_value(self.metric, self.chance)
        bounds = () if self.interval is None else self.interval
        interval = " to ".join(format_value(self.metric, bound) for bound in bounds)
        evaluation = f"{self.evaluation} ({APPROXIMATE})" if self.approximate else self.evaluation
        return evaluation, self.metric, format_value(self.metric, self.value), interval, chance


def result_rows(results: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Rows of some evaluations: name -> result, as in a results file (``{"metrics": {...}, ...}``).

    A metric ``<name>_chance`` becomes the chance level of ``<name>``; without its metric it is a row itself.

    Raises:
        ValueError: for an entry without ``metrics``.
    """
    rows = []
    for evaluation, result in results.items():
        metrics = result.get("metrics")
        if not isinstance(metrics, Mapping):
            raise ValueError(f"{evaluation}: has no `metrics`; expected an evaluation's result.")
        for name, value in metrics.items():
            if name.endswith(CHANCE) and name.removesuffix(CHANCE) in metrics:
                continue
            chance = metrics.get(f"{name}{CHANCE}")
            bounds = result.get("intervals", {}).get(name)
            interval = None if bounds is None else (float(bounds[0]), float(bounds[1]))
            chance = None if chance is None else float(chance)
            approximate = bool(result.get("meta", {}).get(APPROXIMATE))
            rows.append(Row(evaluation, name, float(value), chance, interval, approximate))
    return rows


def results_csv(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per metric, full precision; an evaluation without result has one line, its value empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for name, entry in results.items():
        rows = result_rows({name: entry})
        for row in rows:
            low, high = ("", "") if row.interval is None else row.interval
            chance = "" if row.chance is None else row.chance
            writer.writerow((name, entry["status"], row.metric, row.value, low, high, chance))
        if not rows:
            writer.writerow((name, entry["status"], "", "", "", "", ""))
    return out.getvalue()


def unit_of(metric: str) -> str:
    """``"%"``, or the name of a metric in a unit of its own: a radius, a distance, edges of a tree, a correlation.

    ``_chance`` and ``after_`` change no unit.
    """
    name = metric.removesuffix("_chance").removeprefix("after_")
    if name in _OF_HIERARCHIES:
        return name
    return PERCENT if _IN_PERCENT.search(name) else name


def format_value(metric: str, value: float) -> str:
    """Percents with one decimal, everything else with four significant digits."""
    if unit_of(metric) == PERCENT:
        return f"{value:.1f}"
    return f"{value:.4g}"


def rich_table(
    rows: Iterable[Sequence[str]],
    *,
    header: Sequence[str] = HEADER,
    title: str | None = None,
    text_columns: int = 2,
) -> "Table":
    """A table for the terminal; a name that repeats the one above is left out.

    ``text_columns`` on the left hold text; the others are aligned right.
    """
    from rich import box
    from rich.table import Table

    caption = None if title is None else _text(title)
    table = Table(title=caption, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for i, name in enumerate(header):
        table.add_column(_text(name), justify="left" if i < text_columns else "right")
    above: str | None = None
    for cells in rows:
        _check_width(cells, header)
        first, *rest = cells
        table.add_row(*(_text(cell) for cell in ("" if first == above else first, *rest)))
        above = first
    return table


def print_table(table: "Table", *, width: int | None = None) -> None:
    """Print a table with every cell whole: on a terminal in lines that fit, else as wide as it is.

    Where lines must fit, the first column folds and the others stay whole (names of metrics, numbers), while the first
    keeps at least :data:`_NARROWEST` characters; else all fold. Nothing is ever left out, and no line ends with spaces.

    Args:
        width: Characters of a line; None = those of the terminal, and in a file or a pipe as many as it takes.
    """
    from rich.console import Console
    from rich.measure import Measurement

    console = Console() if width is None else Console(width=width)
    if width is None and not console.is_terminal:
        unbounded = console.options.update(max_width=_WIDEST)
        console.width = max(console.width, Measurement.get(console, unbounded, table).maximum)
    _fold(table, console.width)
    with console.capture() as printed:  # rich itself would end the process when the reader of a pipe has gone
        console.print(table)
    sys.stdout.writelines(f"{_without_end(line)}\n" for line in printed.get().splitlines())


def print_legend(lines: Iterable[str], *, indent: int = 0) -> None:
    """Print lines of text: on a terminal folded between words, what follows indented by 2 more, else whole.

    Args:
        indent: Blanks before each line.
    """
    from rich.console import Console

    console = Console()
    after = " " * (indent + 2)
    for line in lines:
        text = " " * indent + printable(line, limit=_LONGEST_CELL)
        if console.is_terminal:
            # long names stay whole: the terminal folds them, and they can be copied
            text = textwrap.fill(
                text,
                console.width,
                subsequent_indent=after,
                break_long_words=False,
                break_on_hyphens=False,
            )
        sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _without_end(line: str) -> str:
    """A line without spaces at its end; colours that end between or after them still do."""
    end = _LINE_END.match(line[::-1])
    kept = line[: len(line) - (0 if end is None else end.end())]
    return kept + "".join(_COLOUR.findall(line[len(kept) :]))


def _fold(table: "Table", width: int) -> None:
    """Say which columns fold in lines of that width."""
    from rich.cells import cell_len

    natural = [
        max(cell_len(str(cell)) for cell in (column.header, *column.cells)) for column in table.columns
    ]
    first, *others = natural
    for column in table.columns:
        column.overflow = "fold"  # by default names end in an ellipsis
    if first + sum(others) + 3 * len(natural) + 1 <= width:  # a blank around each cell, a line between two
        return
    left = width - sum(others) - 2 * len(natural)
    if left >= min(first, _NARROWEST):
        table.padding, table.show_edge = (0, 1, 0, 0), False  # closer: a blank and a line between two
        table.columns[0].max_width = left
        for column in table.columns[1:]:
            column.no_wrap = True


def markdown_table(
    rows: Iterable[Sequence[str]], *, header: Sequence[str] = HEADER, text_columns: int = 2
) -> str:
    """The same as a Markdown table; bars and line ends inside cells are escaped."""
    lines = [
        "| " + " | ".join(header) + " |",
        "|" + "|".join("---" if i < text_columns else "---:" for i in range(len(header))) + "|",
    ]
    for cells in rows:
        _check_width(cells, header)
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _text(cell: str) -> "Text":
    """A cell as it is: no markup, no control characters."""
    from rich.text import Text

    return Text(printable(cell, limit=_LONGEST_CELL))


def _check_width(cells: Sequence[str], header: Sequence[str]) -> None:
    if len(cells) != len(header):
        raise ValueError(
            f"row {list(cells)}: {len(cells)} cells; expected {len(header)}, {', '.join(header)}."
        )
