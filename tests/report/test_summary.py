"""Many results files as one table."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from hypvl.errors import DataError
from hypvl.report.summary import read_folder, summarize
from tests.parity.reference import load, number


def ok(
    value: float, *, metric: str = "top1_accuracy", measured: str | None = None, **more: float
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "status": "ok",
        "metrics": {"other": 1.0, metric: value, f"{metric}_chance": 10.0, **more},
        "meta": {"main_metric": metric},
    }
    return entry if measured is None else entry | {"measured": measured}


MISSING = {"status": "missing", "reason": "not there", "metrics": {}}
FAILED = {"status": "failed", "reason": "broken", "metrics": {}}


def content(
    results: dict[str, Any], *, checkpoint: str = "a.pth", sha: str = "a1", **origin: Any
) -> dict[str, Any]:
    return {
        "format_version": 1,
        "provenance": {"checkpoint": checkpoint, "checkpoint_sha256": sha, "started": "2026-01-01", **origin},
        "results": results,
    }


def test_rows_columns_and_averages_by_hand() -> None:
    files = [
        content({"mnist": ok(80.0), "dtd": ok(40.0)}, checkpoint="b.pth", sha="b1"),
        content({"mnist": ok(90.0), "dtd": MISSING, "pets": FAILED}),
    ]
    summary = summarize(files)
    assert summary.columns == ["mnist", "dtd", "pets"]
    assert [(row.checkpoint, row.average) for row in summary.rows] == [("a.pth", 90.0), ("b.pth", 60.0)]
    assert summary.rows[0].missing == {"dtd": "missing", "pets": "failed"}
    assert summary.rows[1].missing == {"pets": "absent"}
    assert summary.metrics == {"mnist": "top1_accuracy", "dtd": "top1_accuracy"}
    header, rows = summary.cells()
    assert header == ["checkpoint", "protocol", "mnist", "dtd", "pets", "Average"]
    assert rows == [
        ["a.pth", "", "90.0", "missing", "failed", "90.00 (1/3)"],
        ["b.pth", "", "80.0", "40.0", "-", "60.00 (2/3)"],
    ]


def test_numbers_in_different_units_have_no_average() -> None:
    results = {
        "mnist": ok(80.0), "coco": ok(40.0, metric="text_to_image_recall@1"), "radii": ok(1.5, metric="text_radius"),
        "tree": ok(2.0, metric="tie"),
    }  # fmt: skip
    summary = summarize([content(results)])
    (row,) = summary.rows
    assert row.average is None and row.units == {
        "%": ["mnist", "coco"], "text_radius": ["radii"], "tie": ["tree"],
    }  # fmt: skip
    assert summary.cells()[1] == [["a.pth", "", "80.0", "40.0", "1.5", "2", ""]]
    (line,) = csv.DictReader(io.StringIO(summary.as_csv()))
    assert (line["Average"], line["sets_averaged"], line["radii"]) == ("", "0", "1.5")
    for sets, average in ((["mnist", "coco"], 60.0), (["radii"], 1.5)):
        assert summarize([content(results)], sets=sets).rows[0].average == average
    # One metric in a unit of its own can be averaged over sets.
    more = content({"a": ok(1.0, metric="text_radius"), "b": ok(2.0, metric="text_radius")})
    assert summarize([more]).rows[0].average == 1.5


def test_an_approximate_set_is_marked_in_the_summary() -> None:
    entry = ok(50.0)
    entry["meta"]["approximate"] = "by word lists"
    summary = summarize([content({"order": entry, "mnist": ok(70.0)})])
    assert summary.cells()[1] == [["a.pth", "", "50.0 (approximate)", "70.0", "60.00"]]


def test_missing_is_empty_in_the_csv_and_never_zero() -> None:
    summary = summarize([content({"mnist": ok(1 / 3), "dtd": MISSING}), content({"dtd": FAILED}, sha="x")])
    rows = list(csv.DictReader(io.StringIO(summary.as_csv())))
    assert rows[0]["mnist"] == repr(1 / 3) and rows[0]["dtd"] == ""
    assert (rows[0]["sets_averaged"], rows[0]["sets_missing"]) == ("1", "1")
    assert rows[1]["Average"] == "" and rows[1]["mnist"] == "" and rows[1]["sets_averaged"] == "0"
    assert "0.0" not in summary.as_csv()


def test_protocols_are_rows() -> None:
    results = {"mnist/zero_shot": ok(50.0), "mnist/few_shot_5": ok(70.0), "dtd/zero_shot": ok(30.0)}
    summary = summarize([content(results)])
    assert [(row.protocol, row.average) for row in summary.rows] == [
        ("few_shot_5", 70.0),
        ("zero_shot", 40.0),
    ]
    only = summarize([content(results)], protocol="zero_shot")
    assert [row.protocol for row in only.rows] == ["zero_shot"] and only.columns == ["mnist", "dtd"]
    assert summarize([content(results)], sets=["dtd"]).rows[0].cells["dtd"].value == 30.0


def test_the_newest_result_counts_and_one_is_better_than_none() -> None:
    old = content({"mnist": ok(10.0), "dtd": ok(5.0)}, started="2026-01-01")
    new = content({"mnist": ok(20.0), "dtd": MISSING}, started="2026-02-01")
    resumed = content({"mnist": ok(15.0, measured="2026-01-15")}, started="2026-03-01")
    for files in ([old, new, resumed], [resumed, new, old]):
        (row,) = summarize(files).rows
        assert {name: cell.value for name, cell in row.cells.items()} == {"mnist": 20.0, "dtd": 5.0}


def test_other_weights_and_other_means_are_other_rows() -> None:
    files = [
        content({"mnist": ok(1.0)}),
        content({"mnist": ok(2.0)}, sha="b2" * 32),
        content({"mnist": ok(3.0)}, standardize="transductive", shift=0.5),
    ]
    labels = [row.checkpoint for row in summarize(files).rows]
    assert labels == ["a.pth [a1]", "a.pth [b2b2b2b2]", "a.pth standardize=transductive shift=0.5"]


def test_the_metric_can_be_chosen_and_is_never_mixed() -> None:
    files = [content({"mnist": ok(1.0)}), content({"mnist": ok(2.0, metric="roc_auc")}, sha="b")]
    with pytest.raises(DataError, match="mnist: has roc_auc and top1_accuracy as main metric"):
        summarize(files)
    assert summarize(files, metric="other").rows[0].average == 1.0
    with pytest.raises(DataError, match="mnist: has no f1; expected one of other, top1_accuracy"):
        summarize(files, metric="f1")


def test_average_of_the_reference() -> None:
    reference = load("ranking_metrics")
    if reference is None or "summary_table" not in reference:
        pytest.skip("ranking_metrics.json has no summary_table")
    table = reference["summary_table"]
    results = {name: ok(number(v)) for name, v in zip(table["datasets"], table["values"], strict=True)}
    (row,) = summarize([content(results)]).rows
    assert row.average == pytest.approx(number(table["average"]), abs=5e-5)  # given to four decimals


def test_files_are_found_below_a_folder(tmp_path: Path) -> None:
    for place in ("run1/results.json", "run2/deep/results_1.json"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(json.dumps(content({})))
    (tmp_path / "run1" / "config.json").write_text("no")
    assert [path.name for path, _ in read_folder(tmp_path)] == ["results.json", "results_1.json"]
    assert len(read_folder(tmp_path / "run1" / "results.json")) == 1
    (tmp_path / "run1" / "results_2.json").write_text("{}")
    with pytest.raises(DataError, match=r"results_2\.json: has no provenance"):
        read_folder(tmp_path)
    (tmp_path / "run1" / "results_2.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no results\*\.json"):
        read_folder(tmp_path / "empty")


def test_files_of_one_model_share_a_row_however_its_config_was_named() -> None:
    subject = {"checkpoint_sha256": "1", "model_sha256": "2", "standardize": None, "shift": None}
    contents = [
        {
            "subject": {**subject, "suite": suite, **more},
            "provenance": {"checkpoint": "a.pth", "checkpoint_sha256": "1", "train_config": config},
            "results": {suite: {"status": "ok", "metrics": {"top1_accuracy": 50.0}}},
        }
        for suite, config, more in (
            ("x", "./c.py", {}),
            ("y", "c.py", {}),
            ("z", "c.py", {"model_sha256": "3"}),
        )
    ]
    rows = summarize(contents).rows
    assert [sorted(row.missing) for row in rows] == [["z"], ["x", "y"]]


def test_models_of_other_libraries_have_a_row_each() -> None:
    contents = [
        {
            "subject": {"checkpoint_sha256": None, "model_sha256": digest, "suite": "x"},
            "provenance": {"model": name, "foreign": {"library": "open_clip"}},
            "results": {"x": {"status": "ok", "metrics": {"top1_accuracy": 50.0}}},
        }
        for name, digest in (("open_clip:a/b", "1"), ("hf:c", "2"), ("hf:c", "34567"))
    ]
    labels = [row.checkpoint for row in summarize(contents).rows]
    assert labels == ["hf:c [2]", "hf:c [34567]", "open_clip:a/b"]
