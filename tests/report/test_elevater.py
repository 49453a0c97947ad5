"""Merging seeds and packing them."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hypvl.errors import DataError
from hypvl.report.elevater import merge_seeds, write_submission


def seed(
    number: int, *, dataset: str = "mnist", trainable: int = 10, rows: int = 2, **other: Any
) -> dict[str, Any]:
    return {
        "model_name": "m",
        "dataset_name": dataset,
        "num_trainable_params": trainable,
        "num_params": 30,
        "num_visual_params": 20,
        "num_backbone_params": 20,
        "n_shot": 5,
        "rnd_seeds": [number],
        "predictions": [[[0.1 * number, 1 - 0.1 * number]] * rows],
        **other,
    }


def test_seeds_are_joined_in_order_and_parameters_averaged() -> None:
    merged = merge_seeds({"a": seed(2, trainable=11), "b": seed(0), "c": seed(1)})
    assert merged == seed(0) | {
        "num_trainable_params": 31 / 3,
        "rnd_seeds": [0, 1, 2],
        "predictions": [[[0.1 * i, 1 - 0.1 * i]] * 2 for i in range(3)],
    }
    assert merge_seeds({"a": merged, "b": seed(5)})["rnd_seeds"] == [0, 1, 2, 5]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([seed(0), seed(1, num_params=31)], "two: its num_params is 31; expected 30, as in one"),
        ([seed(0), seed(1, n_shot=20)], "two: its n_shot is 20; expected 5"),
        ([seed(0), seed(0)], r"have the seeds \[0, 0\]; expected each once"),
        ([seed(0), seed(1, rows=3)], r"2 x 2 and 3 x 2 \(images x classes\)"),
        ([seed(0), {"model_name": "m"}], "two: lacks dataset_name, num_params"),
        ([seed(0), seed(1, rnd_seeds=[1, 2])], "two: has 2 seeds and 1 predictions"),
    ],
)
def test_what_does_not_belong_together(files: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        merge_seeds(dict(zip(("one", "two"), files, strict=True)))


def write(folder: Path, *contents: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for one in contents:
        (folder / f"{one['dataset_name']}_seed{one['rnd_seeds'][0]}.json").write_text(json.dumps(one))


def test_a_zip_of_all_sets(tmp_path: Path) -> None:
    folder = tmp_path / "few_shot_5"
    write(folder, seed(0), seed(1), seed(0, dataset="dtd"))
    result = write_submission(folder, tmp_path / "out" / "x.zip", expected=["dtd", "gtsrb", "mnist"])
    assert result.seeds == {"dtd": [0], "mnist": [0, 1]} and result.missing == ["gtsrb"]
    with zipfile.ZipFile(result.path) as archive:
        assert archive.namelist() == ["dtd.json", "mnist.json"] and archive.testzip() is None
        assert json.loads(archive.read("mnist.json")) == merge_seeds({"a": seed(0), "b": seed(1)})
    first = result.path.read_bytes()
    assert write_submission(folder, tmp_path / "again.zip").path.read_bytes() == first


def test_the_model_s_name_can_be_given(tmp_path: Path) -> None:
    write(tmp_path / "p", seed(0), seed(0, dataset="dtd", model_name="n"))
    with pytest.raises(DataError, match="its files have the model_name m and n"):
        write_submission(tmp_path / "p", tmp_path / "x.zip")
    write_submission(tmp_path / "p", tmp_path / "x.zip", model_name="k")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert {json.loads(archive.read(n))["model_name"] for n in archive.namelist()} == {"k"}


def test_sets_of_other_shots_are_not_packed_together(tmp_path: Path) -> None:
    write(tmp_path / "p", seed(0), seed(0, dataset="dtd", n_shot=20))
    with pytest.raises(DataError, match="have the n_shot 20 and 5"):
        write_submission(tmp_path / "p", tmp_path / "x.zip")


def test_no_files_and_broken_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prediction files"):
        write_submission(tmp_path, tmp_path / "x.zip")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: cannot be read as JSON"):
        write_submission(tmp_path, tmp_path / "x.zip")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match=r"a\.json: holds a list"):
        write_submission(tmp_path, tmp_path / "x.zip")
