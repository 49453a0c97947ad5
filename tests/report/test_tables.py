"""Results as rows, for the terminal and for Markdown."""

import io
import re
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from hypvl.report.tables import (
    Row,
    format_value,
    markdown_table,
    print_legend,
    print_table,
    result_rows,
    rich_table,
)

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


def test_an_approximate_set_is_marked_in_the_table() -> None:
    entry = {"metrics": {"accuracy": 50.0}, "meta": {"approximate": "by word lists"}}
    (row,) = result_rows({"coco_order": entry})
    assert row.approximate and row.cells()[:3] == ("coco_order (approximate)", "accuracy", "50.0")
    assert not result_rows({"coco_order": {"metrics": {"accuracy": 50.0}, "meta": {}}})[0].approximate


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
        ("clip_score", 0.78123, "0.7812"),
        ("text_score_Object", 31.25, "31.2"),
        ("hierarchical_recall", 0.81234, "0.8123"),
        ("aupr_probability", 31.25, "31.2"),
        ("fpr95_score", 31.25, "31.2"),
        ("prompt_std", 1.2345, "1.2"),
        ("map_11_points_voc2007", 31.25, "31.2"),
        ("itt_accuracy_swap_object", 31.25, "31.2"),
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


LONG = {
    "scenes_modality_gap": {
        "metrics": {f"after_embedding_{name}_of_every_pair_of_the_set": 0.5 for name in "ab"}
    },
    "a_set_with_a_name_of_its_own/protocol_few_shot_50": {"metrics": {"top1_accuracy": 12.0}},
}


def test_in_a_pipe_names_are_whole_however_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # of the terminal beside
    rows = [row.cells() for row in result_rows(LONG)]
    print_table(rich_table(rows, title="results"))
    lines = capsys.readouterr().out.splitlines()
    assert "…" not in "".join(lines) and not any(line.endswith(" ") for line in lines)
    for name, entry in LONG.items():
        for metric in entry["metrics"]:
            assert sum(metric in line for line in lines) == 1
        assert sum(name in line for line in lines) == 1
    assert len([line for line in lines if line.strip()]) == 1 + 2 + 3  # title, header and rule, a line each
    print_table(rich_table([("a" * 3000, "m", "1", "", "")]))
    assert "a" * 3000 in capsys.readouterr().out


def test_where_there_is_a_width_names_are_folded_and_nothing_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(rich_table([row.cells() for row in result_rows(LONG)]), width=60)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 60 and "…" not in out
    shown = Counter("".join(out.split()))
    names = Counter("".join([*LONG, *(metric for entry in LONG.values() for metric in entry["metrics"])]))
    assert names <= shown


def test_at_80_columns_names_of_metrics_and_numbers_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        (
            "a_set_with_a_name_of_its_own",
            "karpathy_1k_text_to_image_recall@10",
            "12.3",
            "10.1 to 14.5",
            "0.1",
        ),
        ("coco", "radius_text", "0.4512", "", ""),
    ]
    print_table(rich_table(rows, title="results"), width=80)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for cell in (cell for row in rows for cell in row[1:] if cell):
        assert any(cell in line for line in lines), cell
    assert "a_set_with_a_name_of_its_own" in "".join(line[:10].strip() for line in lines)


def test_every_command_prints_tables_this_way() -> None:
    import hypvl.cli

    for path in Path(hypvl.cli.__file__).parent.glob("*.py"):
        assert "Console().print(" not in path.read_text(), path.name


def test_rich_prints_a_name_once_and_brackets_literally() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    rows = [("digits", "[bold]a", "1", "", ""), ("digits", "b", "2", "", "3"), ("scenes", "b", "4", "", "")]
    console.print(rich_table(rows, title="results [of] x"))
    text = console.export_text()
    assert text.count("digits") == 1
    assert "[bold]a" in text
    assert "results [of] x" in text
    with pytest.raises(ValueError, match="expected 2, a, b"):
        rich_table([("x",)], header=("a", "b"))


def test_cells_are_shown_as_they_are() -> None:
    console = Console(width=120, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(
        rich_table([("meru[/v2]", "\x1b]0;x\x07[red]")], header=("[b]", "[/]"), title="out[/v3]\x9b")
    )
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    for text in ("meru[/v2]", "\\x1b]0;x\\x07[red]", "[b]", "[/]", "out[/v3]\\x9b"):
        assert text in shown
    assert "\x07" not in shown and "\x9b" not in shown


def test_no_line_ends_with_spaces_on_a_terminal_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    print_table(rich_table([row.cells() for row in result_rows(LONG)], title="results"), width=100)
    lines = capsys.readouterr().out.splitlines()
    assert any("\x1b[1m" in line for line in lines)
    for line in lines:
        shown = re.sub(r"\x1b\[[0-9;]*m", "", line)
        assert shown == shown.rstrip(" ")
        assert line.count("\x1b[0m") == len(re.findall(r"\x1b\[(?!0m)[0-9;]*m", line))  # every colour ends


def test_a_legend_folds_between_words_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    legend = ["order-chains: hierarchical_precision of the texts above", "x" * 50]
    print_legend(legend)
    assert capsys.readouterr().out.splitlines() == legend
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm-256color")
    print_legend(legend)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["order-chains:", "  hierarchical_precision of", "  the texts above", "x" * 50]
