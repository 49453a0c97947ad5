"""Damaged input through the real readers: no crash, no hang, no write outside, bad samples counted, memory bounded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.child import GROUPS, cases_of
from tests.fuzz.harness import Case, FuzzFailure, Outcome, Sandbox, run_case

#: Bytes by which the peak of memory may grow over all cases of a group. An image that is allowed takes 1 GiB.
_GROWTH = {"images": 1200 << 20}
_USUAL_GROWTH = 400 << 20
_LONGEST = 900.0  # seconds of a group
_FEW = 6  # cases of each group that always run


@pytest.mark.parametrize("group", GROUPS)
def test_a_few_cases_of_each_group(group: str, tmp_path: Path) -> None:
    cases = cases_of(group)
    for number in range(_FEW):
        run_case(cases[number * len(cases) // _FEW], tmp_path / str(number))


def test_there_are_more_than_a_thousand_cases_and_no_name_twice() -> None:
    names = [case.name for group in GROUPS for case in cases_of(group)]
    assert len(names) == len(set(names)) and len(names) > 2500


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_all_cases(group: str) -> None:
    result = run_group(group)
    assert result["failures"] == []
    assert result["cases"] == len(cases_of(group))
    assert result["good"] + result["bad"] + result["refused"] > 0
    assert result["growth"] < _GROWTH.get(group, _USUAL_GROWTH)


def run_group(group: str) -> dict[str, object]:
    """All cases of a group in a process of its own: its last line. A process that dies names its case."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.child", group, "0", "1"],
        capture_output=True, text=True, timeout=_LONGEST, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    if done.returncode != 0:
        pytest.fail(f"{group} ended with {done.returncode} in {lines[-1:]}: {done.stderr[-2000:]}")
    result: dict[str, object] = json.loads(lines[-1])
    print(group, {key: value for key, value in result.items() if key != "failures"})
    return result


def _case(run: object) -> Case:
    return Case("planted", run)  # type: ignore[arg-type]


def test_the_harness_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A harness that finds nothing proves nothing: crashes, hangs and writes that are planted are found."""

    def crash(box: Sandbox) -> Outcome:
        raise KeyError("x")

    def write(box: Sandbox) -> Outcome:
        Path("here").touch()  # in the working folder
        return Outcome()

    def change(box: Sandbox) -> Outcome:
        (box.outside / "canary").write_text("changed")
        return Outcome()

    def hang(box: Sandbox) -> Outcome:
        while True:
            pass

    monkeypatch.setattr("tests.fuzz.harness.SECONDS", 0.2)
    planted = {"KeyError": crash, "wrote outside": write, "outside": change, "still running": hang}
    for number, (words, run) in enumerate(planted.items()):
        with pytest.raises(FuzzFailure, match=words):
            run_case(_case(run), tmp_path / str(number))
    assert run_case(_case(lambda box: Outcome(good=1)), tmp_path / "fine") == Outcome(good=1)
