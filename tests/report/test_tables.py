"""Results as rows, for the terminal and for Markdown."""

import io

import pytest
from rich.console import Console

from hypvl.report.tables import Row, format_value, markdown_table, result_rows, rich_table

RESULTS = {
    "digits": {"metrics": {"top1_accuracy": 93.25, "top1_accuracy_chance": 10.0, "mean_loss": 0.123456}},
    "radii": {"metrics": {"text_radius": 0.5}, "intervals": {"text_radius": [0.4, 0.625]}, "items": {}},
}


def test_chance_levels_stand_beside_their_metric() -> None:
    assert result_rows(RESULTS) == [
        Row("digits", "top1_accuracy", 93.25, 10.0),
        Row("digits", "mean_loss", 0.123456, None),
        Row("radii", "text_radius", 0.5, None, (0.4, 0.625)),
    ]


def test_a_chance_level_alone_is_a_row() -> None:
    assert result_rows({"a": {"metrics": {"recall_chance": 1.0}}}) == [Row("a", "recall_chance", 1.0, None)]


def test_a_result_without_metrics_is_named() -> None:
    with pytest.raises(ValueError, match="digits: has no `metrics`"):
        result_rows({"digits": {"accuracy": 3}})


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("top1_accuracy", 93.25, "93.2"),
        ("text_to_image_recall@1", 0.04, "0.0"),
        ("hierarchy_share", 100.0, "100.0"),
        ("text_radius", 0.123456, "0.1235"),
        ("scenes", 100.0, "100"),
    ],
)
def test_values_are_rounded_by_what_they_are(metric: str, value: float, text: str) -> None:
    assert format_value(metric, value) == text


def test_markdown() -> None:
    rows = [row.cells() for row in result_rows(RESULTS)]
    assert markdown_table([*rows, ("a|b", "c\nd", "1", "", "")]) == (
        "| evaluation | metric | value | 95 % interval | chance |\n"
        "|---|---|---:|---:|---:|\n"
        "| digits | top1_accuracy | 93.2 |  | 10.0 |\n"
        "| digits | mean_loss | 0.1235 |  |  |\n"
        "| radii | text_radius | 0.5 | 0.4 to 0.625 |  |\n"
        "| a\\|b | c d | 1 |  |  |\n"
    )
    with pytest.raises(
        ValueError, match="1 cells; expected 5, evaluation, metric, value, 95 % interval, chance"
    ):
        markdown_table([("a",)])


def test_rich_says_a_name_once_and_takes_brackets_literally() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    rows = [("digits", "[bold]a", "1", "", ""), ("digits", "b", "2", "", "3"), ("scenes", "b", "4", "", "")]
    console.print(rich_table(rows, title="results [of] x"))
    text = console.export_text()
    assert text.count("digits") == 1
    assert "[bold]a" in text
    assert "results [of] x" in text
    with pytest.raises(ValueError, match="expected 2, a, b"):
        rich_table([("x",)], header=("a", "b"))
