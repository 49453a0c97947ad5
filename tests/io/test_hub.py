"""Files of data sets on the Hugging Face hub: brought by the hub's client, put in place whole."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from hypvl.datasets.catalog import fetching
from hypvl.io.hub import download_from_hub
from hypvl.io.remote import DownloadError

ADDRESS = "https://huggingface.co/datasets/clip-benchmark/wds_cars/resolve/main"
FILES = {
    "test/nshards.txt": "2\n",
    "test/0.tar": "zero",
    "test/1.tar": "one",
    "classnames.txt": "a\n",
    "zeroshot_classification_templates.txt": "{c}\n",
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The (repository, file) that were asked for; a hub that has :data:`FILES`."""
    names: list[tuple[str, str]] = []

    def hub(repo: str, name: str, *, repo_type: str, revision: str, local_dir: Path) -> str:
        assert (repo_type, revision) == ("dataset", "main")
        names.append((repo, name))
        place = local_dir / name
        place.parent.mkdir(parents=True)
        (local_dir / ".cache").mkdir()
        place.write_text(FILES[name])
        return str(place)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    return names


def test_a_set_of_the_hub_is_fetched_once(tmp_path: Path, asked: list[tuple[str, str]]) -> None:
    fetching.fetch_webdataset(ADDRESS, tmp_path / "cars", ["test"])
    got = {str(path.relative_to(tmp_path / "cars")): path for path in (tmp_path / "cars").rglob("[!.]*")}
    assert {name: path.read_text() for name, path in got.items() if path.is_file()} == FILES
    assert set(asked) == {("clip-benchmark/wds_cars", name) for name in FILES}
    assert not list((tmp_path / "cars").rglob("*.hub"))
    asked.clear()
    fetching.fetch_webdataset(ADDRESS, tmp_path / "cars", ["test"])
    assert not asked


def test_other_addresses_are_left_alone(tmp_path: Path, asked: list[tuple[str, str]]) -> None:
    assert not download_from_hub("https://example.org/datasets/a/b/resolve/main/x.tar", tmp_path / "x")
    assert not asked and not list(tmp_path.iterdir())


def test_a_hub_that_does_not_answer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise OfflineModeIsEnabled("Cannot reach the hub: offline mode.\nSecond line")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(
        DownloadError, match=r"the hub did not give it \(Cannot reach the hub: offline mode\.\)"
    ):
        download_from_hub(f"{ADDRESS}/test/0.tar", tmp_path / "0.tar")
