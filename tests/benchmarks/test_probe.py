"""The probe's benchmark at a tiny size: both sides fit the same thing."""

import json

import pytest

from benchmarks import probe


@pytest.mark.slow
def test_both_sides_fit_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    probe.main(["--rows", "200", "--dim", "8", "--classes", "3", "--repeats", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["fits"] == len(result["by_cost"]) >= 12
    assert result["time_ratio"] == pytest.approx(1 / result["throughput_ratio"])
    assert result["objective_excess"] <= 1e-5  # of 1, both at the optimum as far as their tolerances go
    assert result["exact"]["objective_excess"] <= 1e-5 and abs(result["exact"]["accuracy_difference"]) <= 2.0
    low = [row for row in result["by_cost"] if row["cost"] <= 0.1]  # where theirs gets to the optimum
    assert low and all(abs(row["excess"]) < 1e-3 for row in low)
    assert all(abs(row["accuracy"] - row["their_accuracy"]) <= 2.0 for row in low)  # 1 of 50 features


def test_the_full_size_is_the_claims() -> None:
    assert probe.FULL == (20_000, 384, 100)
    given = probe.problem(40, 6, 4)
    assert (
        given.features.shape == (40, 6) and given.check.shape == (10, 6) and given.features.dtype == "float32"
    )
