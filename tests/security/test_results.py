"""Results, metrics and lists of somebody else: what no command of ours writes is one sentence, and soon."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypvl.cli.compared import read_side
from hypvl.datasets.composition.vl_checklist import vl_checklist
from hypvl.errors import DataError
from hypvl.report.html.run_files import read_run
from hypvl.report.summary import read_file

HUGE = 10**400  # as JSON may say it; no float holds it
BROKEN: dict[str, Any] = {
    "a number that is no float": {"metrics": {"acc": HUGE}},
    "a text": {"metrics": {"acc": "x"}},
    "no number": {"metrics": {"acc": None}},
    "a list": {"metrics": [1]},
    "meta": {"meta": 3},
    "an interval": {"intervals": {"acc": [HUGE, 0]}},
    "half an interval": {"intervals": {"acc": [1]}},
    "intervals": {"intervals": "x"},
}


def results(folder: Path, entry: Any) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps({"provenance": {}, "results": {"a": entry}}))
    return path


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize(
    "read", [read_file, lambda path: read_run(path.parent), lambda path: read_side(str(path))]
)
def test_entries_that_no_evaluation_writes(tmp_path: Path, read: Callable[[Path], Any], name: str) -> None:
    path = results(tmp_path, {"status": "ok", "metrics": {"acc": 50.0}, "meta": {}, **BROKEN[name]})
    with pytest.raises(
        DataError, match=r"results\.json: the entry 'a' has .*evaluate again or remove it"
    ) as caught:
        read(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "read", [read_file, lambda path: read_run(path.parent), lambda path: read_side(str(path))]
)
def test_an_entry_that_is_none(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(DataError, match=r"the entry 'a' is '\[1\]'"):
        read(results(tmp_path, [1]))


def test_metrics_that_are_no_floats_leave_gaps(tmp_path: Path) -> None:
    values = [1.0, HUGE, -HUGE, float("inf"), 3.0, *[1e308] * 595]
    rows = [json.dumps({"iteration": i, "loss": value}) for i, value in enumerate(values)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows).replace("Infinity", "1e999"))
    (curve,) = read_run(tmp_path).curves
    assert curve["values"][:3] == [None, None, 5e307 + 1.5] and curve["values"][-1] == 1e308


LEVELS = 12
YAML = {
    "lists of lists": "a0: &a0 [x, x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, LEVELS))
    + f"ANNO_PATH: *a{LEVELS - 1}\n",
    "merges": "a0: &a0 {k: 1}\n"
    + "".join(f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 4)}]\n" for i in range(1, LEVELS)),
    "itself": "&a [*a]",
    "brackets": "[" * 50_000,
    "a date": "ANNO_PATH: 2001-99-99",
    "digits": "a: 0b_",
    "letters": "a: b\n" * 50_000,
    "an object": "!!python/object/apply:os.system ['true']",
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_of_a_set_that_grows_without_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / "corpus" / "v1" / "Object" / "a.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(YAML[name])
    with pytest.raises(DataError, match=r"a\.yaml: is not valid YAML") as caught:
        vl_checklist(tmp_path)
    assert "\n" not in str(caught.value)
