"""Folders from elsewhere: what their records name is not removed, and nothing without an end is waited for."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from hypvl.errors import DataError
from hypvl.units.claims import Claims, Owner
from hypvl.units.unit import Made, Unit, UnitFolder


def claimed(folder: Path, content: dict[str, Any]) -> Path:
    """A claim of two hours ago."""
    path = folder / "units" / "claims" / "a.0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    os.utime(path, (time.time() - 7200,) * 2)
    return path


def make(argument: Any, folder: Path, tick: Callable[[int], None]) -> Made:
    (folder / "a.out").write_text("a")
    return Made(["a.out"])


@pytest.mark.parametrize("here", [False, True])
@pytest.mark.parametrize(
    "token",
    ["VICTIM", "../../../victim", "..", ".", "", "a" * 31, "A" * 32, f"{'a' * 32}\n", f"{'a' * 32}/../x", 7],
)
def test_claims_lead_to_no_folder_that_is_removed(tmp_path: Path, token: Any, here: bool) -> None:
    (tmp_path / "victim" / "deep").mkdir(parents=True)
    token = str(tmp_path / "victim") if token == "VICTIM" else token
    owner = replace(Owner.new(), token=token, **({"started": "1"} if here else {"machine": "other"}))
    out = tmp_path / "out"
    claimed(out, asdict(owner))
    (out / "units" / "work" / "kept").mkdir(parents=True)
    units = UnitFolder(out, command="x", settings={})
    units.remove_left_work()
    assert units.run(Unit("a"), make).status == "made"
    assert (tmp_path / "victim" / "deep").is_dir() and (out / "units" / "work" / "kept").is_dir()


def test_the_folder_of_a_real_claim_is_removed(tmp_path: Path) -> None:
    owner = replace(Owner.new(), started="1")
    claimed(tmp_path, asdict(owner))
    left = tmp_path / "units" / "work" / owner.token
    left.mkdir(parents=True)
    UnitFolder(tmp_path, command="x", settings={}).remove_left_work()
    assert not left.exists()


@pytest.mark.parametrize("field", ["host", "machine", "started", "time", "pid"])
@pytest.mark.parametrize("value", [None, [], {"a": 1}, True])
def test_a_claim_of_other_values_names_no_owner(tmp_path: Path, field: str, value: Any) -> None:
    claimed(tmp_path, asdict(Owner.new()) | {field: value})
    claim = Claims(tmp_path / "units" / "claims").current("a")
    assert claim is not None and claim.owner is None


def test_a_claim_or_a_manifest_without_an_end_is_not_waited_for(tmp_path: Path) -> None:
    units = UnitFolder(tmp_path, command="x", settings={})
    claim = claimed(tmp_path, {})
    claim.unlink()
    os.mkfifo(claim)
    assert Claims(claim.parent).current("a") is not None
    claim.unlink()
    manifest = tmp_path / "units" / "manifests" / "a.json"
    manifest.parent.mkdir()
    manifest.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"a\.json: cannot be read .*not a regular file but a device"):
        units.finished(Unit("a"))


@pytest.mark.parametrize(
    "manifest",
    [
        {"settings": {}},
        {"settings": {}, "inputs": 3},
        {"settings": {}, "inputs": [{}], "outputs": {}},
        {"settings": {}, "inputs": [], "outputs": ["a"]},
        {"settings": {}, "inputs": [], "outputs": {"a": None}, "counts": {}},
    ],
)
def test_a_manifest_of_another_form_is_one_sentence(tmp_path: Path, manifest: dict[str, Any]) -> None:
    path = tmp_path / "units" / "manifests" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest))
    (tmp_path / "a").write_text("a")
    units = UnitFolder(tmp_path, command="x", settings={})
    result = units.run(Unit("a"), make)
    assert result.status == "failed" and result.error.startswith(f"{path}: ")
    assert "\n" not in result.error and result.error.endswith("delete it to make this part again.")
