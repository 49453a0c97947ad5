"""Which entries of two runs differ, and whether metrics do by more than their intervals."""

import pytest

from hypvl.report.difference import (
    interval_verdict,
    metric_differences,
    provenance_differences,
    record_differences,
    result_differences,
)


@pytest.mark.parametrize(
    ("values", "intervals", "verdict"),
    [
        ((70.0, 70.0), (None, None), "equal"),
        ((70.0, 74.0), ((68.0, 72.0), (72.5, 75.0)), "beyond"),
        ((74.0, 70.0), ((72.5, 75.0), (68.0, 72.0)), "beyond"),
        ((70.0, 74.0), ((68.0, 72.0), (72.0, 75.0)), "within"),
        ((70.0, 74.0), ((68.0, 72.0), None), "unknown"),
        ((70.0, None), ((68.0, 72.0), None), "unknown"),
    ],
)
def test_two_values_differ_where_their_intervals_are_apart(
    values: tuple, intervals: tuple, verdict: str
) -> None:
    result = interval_verdict(*values, first_interval=intervals[0], second_interval=intervals[1])
    assert result == verdict


def test_provenance_is_compared_but_for_time_and_command() -> None:
    first = {"seed": 0, "packages": {"torch": "2.11.0", "timm": "1"}, "started": "a", "command": ["x"]}
    second = {"seed": 1, "packages": {"torch": "2.12.0", "timm": "1"}, "started": "b", "command": ["y"]}
    found = provenance_differences(first, second)
    assert [(d.key, d.first, d.second) for d in found] == [
        ("packages.torch", "2.11.0", "2.12.0"),
        ("seed", 0, 1),
    ]
    assert provenance_differences(first, {**first, "started": "c", "command": []}) == []


def test_speed_is_no_difference_of_metrics() -> None:
    first = {"loss": 1.0, "samples_per_second": 10.0, "memory_gb": 1.0}
    assert metric_differences(first, {**first, "samples_per_second": 20.0, "memory_gb": 2.0}) == []
    (found,) = metric_differences(first, {**first, "curv": 0.5})
    assert found.as_data() == {"key": "curv", "first": None, "second": 0.5}


def test_results_name_what_only_one_run_has_and_other_settings() -> None:
    entry = {"metrics": {"recall@1": 50.0}, "intervals": {"recall@1": [48, 52]}, "settings_sha256": "a"}
    other = {
        "metrics": {"recall@1": 60.0, "x": 1.0},
        "intervals": {"recall@1": [58, 62]},
        "settings_sha256": "b",
    }
    found = result_differences({"coco": entry, "flickr": entry}, {"coco": other, "flickr": {}})
    assert [(d.evaluation, d.metric, d.verdict, d.same_settings) for d in found] == [
        ("coco", "recall@1", "beyond", False),
        ("coco", "x", "unknown", False),
        ("flickr", "recall@1", "unknown", True),
    ]
    assert found[0].first_interval == (48.0, 52.0) and found[2].second is None


def test_records_are_compared_line_by_line_but_for_speed() -> None:
    first = [{"iteration": 2, "loss": 1.0, "eta_seconds": 5.0}, {"iteration": 4, "loss": 0.5}]
    same = [{"iteration": 2, "loss": 1.0, "eta_seconds": 9.0}, {"iteration": 4, "loss": 0.5}]
    assert record_differences(first, same) == []
    other = [*first[:1], {"iteration": 4, "loss": 0.25}, {"iteration": 6}]
    assert [(d.key, d.first, d.second) for d in record_differences(first, other)] == [
        ("4.loss", 0.5, 0.25),
        ("records", 2, 3),
    ]
