"""Names of earlier versions in stored configs are read by today's names."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from hypvl.config import LazyConfig, allowed_targets, reader
from hypvl.config.plain import locate
from hypvl.config.reader import RENAMES, stored_data
from hypvl.models.hub import stored_config

PART = "tests.config.parts.Part"
TABLE = {
    "targets": {"old.Part": "newer.Part", "newer.Part": PART},
    "arguments": {"newer.Part": {"width": "size"}, PART: {"size": "features", "post": "transforms"}},
    "values": {PART: {"features": {"many": "all"}}},
}


@pytest.fixture
def renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A rename table with a chain; the warnings that reading gives."""
    path = tmp_path / "renames.json"
    path.write_text(json.dumps(TABLE))
    monkeypatch.setattr(reader, "RENAMES", path)
    monkeypatch.setenv("HYPVL_EXTRA_TARGETS", PART)
    reader._rename_table.cache_clear()
    reader._warn_once.cache_clear()
    warnings: list[str] = []
    sink = logger.add(warnings.append, format="{message}")  # type: ignore[arg-type]  # a Message is a str
    yield warnings
    logger.remove(sink)
    reader._rename_table.cache_clear()


def test_a_chain_of_renamed_targets_and_arguments_ends_at_today(renames: list[str]) -> None:
    data = {"_target_": "old.Part", "width": 3, "list": [{"_target_": "newer.Part", "size": 4}], "x": None}
    assert stored_data(data, source="s") == {
        "_target_": PART, "features": 3, "list": [{"_target_": PART, "features": 4}], "x": None,
    }  # fmt: skip


def test_an_old_value_of_an_argument_has_its_name_of_today(renames: list[str]) -> None:
    data = [{"_target_": PART, name: value} for name in ("size", "features") for value in ("many", "${x}")]
    assert stored_data(data, source="s") == [{"_target_": PART, "features": v} for v in ("all", "${x}") * 2]
    other = {"_target_": "other.Part", "features": "many"}
    assert stored_data(other, source="s") == other


def test_other_targets_keep_an_argument_of_a_renamed_name(renames: list[str]) -> None:
    data = {"a": {"_target_": "other.Part", "post": 1}, "b": {"post": 2}, "c": {"_target_": 3, "post": 4}}
    assert stored_data(data, source="s") == data
    assert renames == []


def test_an_old_argument_beside_its_new_name_stays_for_the_target_to_refuse(renames: list[str]) -> None:
    data = {"_target_": PART, "post": 1, "transforms": 2}
    assert stored_data(data, source="s") == data


def test_references_follow_a_renamed_argument(renames: list[str]) -> None:
    text = """
    model: {_target_: old.Part, post: {_target_: old.Part, width: 3}}
    data: {a: "${model.post.width}", b: "x${model.post}y", c: "${model.postal}", d: "${post}"}
    """
    data: Any = stored_data(text, source="s")
    assert data["data"] == {
        "a": "${model.transforms.features}", "b": "x${model.transforms}y", "c": "${model.postal}", "d": "${post}",
    }  # fmt: skip


def test_one_warning_per_file_names_it_and_one_old_name(renames: list[str]) -> None:
    for _ in range(2):
        LazyConfig.from_dict({"a": {"_target_": "old.Part", "width": 3}}, source="run/config.yaml")
    assert [line.strip() for line in renames] == [
        "run/config.yaml: written by an earlier version; 'old.Part' and 1 more read by today's names"
    ]


def test_every_reader_of_a_stored_config_knows_the_old_names(renames: list[str], tmp_path: Path) -> None:
    data: dict[str, Any] = {"x": {"_target_": "old.Part", "width": 3}}
    (tmp_path / "c.yaml").write_text(json.dumps(data))
    (tmp_path / "c.json").write_text(json.dumps(data))
    expected = {"x": {"_target_": PART, "features": 3}}
    assert LazyConfig.load(tmp_path / "c.yaml") == expected
    assert LazyConfig.load(tmp_path / "c.json") == expected
    assert LazyConfig.from_yaml(json.dumps(data)) == expected
    model: dict[str, Any] = {"model": "${x}", "x": data["x"]}
    assert stored_config(json.dumps(model), source="checkpoint").x == expected["x"]


def test_a_python_config_names_what_is_there(renames: list[str], tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("x = dict(_target_='old.Part', width=3)\n")
    assert LazyConfig.load(tmp_path / "c.py").x == {"_target_": "old.Part", "width": 3}


def test_the_table_leads_to_what_exists() -> None:
    table = json.loads(RENAMES.read_text(encoding="utf-8"))
    for old in table["targets"]:
        target, _ = reader._current(old)
        assert target in allowed_targets(), old
    for target, arguments in table["arguments"].items():
        current, renamed = reader._current(target)
        assert callable(locate(current)) and set(arguments) <= set(renamed)
    for target, values in table["values"].items():
        assert target in allowed_targets() and set(values) <= set(
            inspect.signature(locate(target)).parameters
        )
