from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.classification import hub_sets
from hypvl.datasets.classification.hub_sets import hub_set
from hypvl.errors import DataError, MissingDataError
from hypvl.io.remote import DownloadError
from tests.evaluation.miniatures.classification import webdataset


def test_a_set_lies_in_a_folder_of_its_name(tmp_path: Path) -> None:
    webdataset(tmp_path / "vtab-svhn", ["0", "1"], ["the number {c}"], splits={"test": 2, "train": 3})
    data = hub_set("vtab/svhn", root=tmp_path)
    assert data.labels == [0, 1, 0, 1] and list(data.prompts or ()) == ["the number {c}"]
    assert len(hub_set("vtab/svhn", root=tmp_path, split="train")) == 6


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
