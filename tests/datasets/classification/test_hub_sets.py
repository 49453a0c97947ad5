from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.classification import hub_sets
from hypvl.datasets.classification.hub_sets import hub_set
from hypvl.datasets.classification.webdataset import SampleGroups
from hypvl.errors import DataError, MissingDataError
from hypvl.io.remote import DownloadError
from tests.evaluation.miniatures.classification import webdataset


def test_a_set_lies_in_a_folder_of_its_name(tmp_path: Path) -> None:
    webdataset(tmp_path / "vtab-svhn", ["0", "1"], ["the number {c}"], splits={"test": 2, "train": 3})
    data = hub_set("vtab/svhn", root=tmp_path)
    assert data.labels == [0, 1, 0, 1] and list(data.prompts or ()) == ["the number {c}"]
    assert len(hub_set("vtab/svhn", root=tmp_path, split="train")) == 6


def test_a_clone_of_the_repository_has_its_name(tmp_path: Path) -> None:
    webdataset(tmp_path / "wds_wilds-fmow_test", ["a", "b"], ["{c}"], splits={"test": 1})
    assert len(hub_set("wilds/fmow_test", root=tmp_path, organisation="djghosh")) == 2


def test_the_group_of_an_image_is_a_number_of_its_sample(tmp_path: Path) -> None:
    webdataset(tmp_path / "geode", ["a", "b"], ["{c}"], splits={"test": 1}, rows=[[7, 1], [3, 0]])
    groups = SampleGroups(column=1, names=["africa", "europe"])
    data = hub_set("geode", root=tmp_path, groups=groups)
    assert data.labels == [0, 1] and data.groups == ["europe", "africa"]
    assert data.take([1]).groups == ["africa"] and hub_set("geode", root=tmp_path).groups == []
    with pytest.raises(
        DataError, match=r"0\.tar/s0000000: its \.npy has 7 at 0; expected 0 … 1 for africa, europe"
    ):
        hub_set("geode", root=tmp_path, groups=SampleGroups(column=0, names=["africa", "europe"]))
    with pytest.raises(DataError, match=r"s0000000: its \.npy has no number at 2 \(index 2"):
        hub_set("geode", root=tmp_path, groups=SampleGroups(column=2, names=["africa"]))


def test_a_set_without_groups_or_with_objects_is_an_error(tmp_path: Path) -> None:
    webdataset(tmp_path / "plain", ["a", "b"], ["{c}"], splits={"test": 1})
    with pytest.raises(DataError, match=r"s0000000: has no \.npy member; it has cls, png"):
        hub_set("plain", root=tmp_path, groups=SampleGroups(column=0, names=["africa"]))
    webdataset(tmp_path / "objects", ["a", "b"], ["{c}"], splits={"test": 1}, rows=[[{}], [{}]])
    with pytest.raises(DataError, match=r"its \.npy has no number at 0 \(it holds objects"):
        hub_set("objects", root=tmp_path, groups=SampleGroups(column=0, names=["africa"]))
    with pytest.raises(ValueError, match="names: got 'africa'"):
        SampleGroups(column=0, names="africa")


def test_what_is_missing_is_fetched_from_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fetch(address: str, folder: Path, splits: list[str]) -> None:
        asked.append((address, splits))
        webdataset(folder, ["a", "b"], ["{c}"], splits={"test": 1})

    monkeypatch.setattr(hub_sets, "fetch_webdataset", fetch)
    for _ in range(2):  # the second time it is there
        assert len(hub_set("vtab/dmlab", root=tmp_path, download=True)) == 2
    assert asked == [("https://huggingface.co/datasets/clip-benchmark/wds_vtab-dmlab/resolve/main", ["test"])]


def test_what_cannot_be_fetched_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = r"fer2013: has no classnames\.txt .*clip-benchmark/wds_fer2013: put its files into"
    with pytest.raises(MissingDataError, match=rf"{where}.*or set download=true"):
        hub_set("fer2013", root=tmp_path)

    def fetch(*_: object) -> None:
        raise DownloadError("no network.")

    monkeypatch.setattr(hub_sets, "fetch_webdataset", fetch)
    with pytest.raises(MissingDataError, match=rf"fer2013: could not be downloaded: no network\. .*{where}"):
        hub_set("fer2013", root=tmp_path, download=True)


@pytest.mark.parametrize("name", ["../fer2013", "a/b/c", "", "https://example.com/x"])
def test_a_name_that_no_repository_has_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name, organisation: got"):
        hub_set(name, root=tmp_path)
