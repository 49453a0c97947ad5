"""A file of negatives for each caption file: the same bytes, whoever makes it."""

import json
from pathlib import Path
from typing import Any

import pytest

from hypvl.data.negatives import HardNegativeMapper
from hypvl.errors import ConfigError, DataError
from hypvl.negatives.backends.base import BuiltinArguments
from hypvl.negatives.entries import SourceArguments
from hypvl.negatives.generate import Settings
from hypvl.negatives.per_shard import ShardNegatives, negatives_of_shards, negatives_shard
from hypvl.negatives.run import make_hard_negatives
from hypvl.units.engines import Engine
from tests.units.test_unit import contents

CAPTIONS = [
    f"A {color} dog sitting on a {place}." for color in ("red", "black") for place in ("bed", "table")
]


@pytest.fixture
def source(tmp_path: Path) -> SourceArguments:
    places = []
    for name in ("a", "b", "c"):
        path = tmp_path / f"{name}.csv"
        rows = [f"{name}{i}.jpg,{caption}" for i, caption in enumerate(CAPTIONS)]
        path.write_text("\n".join(["image,caption", *rows, f"{name}.jpg, "]))
        places.append(str(path))
    return SourceArguments(tuple(places))


def go(source: SourceArguments, output: Path, *, seed: int = 0, **more: Any) -> list[Any]:
    make = ShardNegatives(BuiltinArguments(), Settings(seed=seed), part_size=3)
    return list(negatives_of_shards(source, output, make, **more))


def test_each_file_is_what_the_whole_command_makes_of_it(source: SourceArguments, tmp_path: Path) -> None:
    results = go(source, tmp_path / "out")
    assert [(one.name, one.status, one.counts["captions"]) for one in results] == [
        ("a", "made", 4), ("b", "made", 4), ("c", "made", 4),
    ]  # fmt: skip
    assert results[0].counts["skipped"] == {"no caption": 1}
    one = SourceArguments(source.places[:1])
    make_hard_negatives(
        one, tmp_path / "a.jsonl", backend=BuiltinArguments(), settings=Settings(), part_size=3
    )
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    row = json.loads((tmp_path / "out" / "b.jsonl").read_text().splitlines()[0])
    assert row["image"] == "b0.jpg" and set(HardNegativeMapper().columns) <= set(row)
    assert [one.status for one in go(source, tmp_path / "out")] == ["existed"] * 3


def test_shares_processes_and_the_function_give_the_same_bytes(
    source: SourceArguments, tmp_path: Path
) -> None:
    go(source, tmp_path / "one")
    for index in (1, 0):
        go(source, tmp_path / "shares", engine=Engine("slurm-array", index=index, count=2))
    go(source, tmp_path / "two", engine=Engine(workers=2, start_method="fork"))
    for place in reversed(source.places):
        result = negatives_shard(place, tmp_path / "calls", part_size=3)
        assert result.files == (f"{Path(place).stem}.jsonl",)
    for name in ("shares", "two", "calls"):
        assert contents(tmp_path / name) == contents(tmp_path / "one")


def test_other_settings_files_without_captions_and_limits_are_refused(
    source: SourceArguments, tmp_path: Path
) -> None:
    go(source, tmp_path / "out")
    with pytest.raises(DataError, match=r"other settings \(seed was 0, now it is 1\)"):
        go(source, tmp_path / "out", seed=1)
    (tmp_path / "a.csv").write_text("image,caption\n")
    (tmp_path / "b.csv").unlink()
    results = go(source, tmp_path / "out")
    assert [(one.name, one.status) for one in results] == [("b", "failed"), ("c", "existed"), ("a", "failed")]
    assert "b.csv: cannot be read (No such file" in results[0].error
    assert results[2].error == f"{tmp_path}/a.csv: has no rows; expected at least one."
    with pytest.raises(ConfigError, match="--limit counts the captions of all files"):
        go(SourceArguments(source.places, limit=3), tmp_path / "out")
