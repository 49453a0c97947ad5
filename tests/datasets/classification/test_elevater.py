"""ELEVATER's index and ZIP files, on miniatures of its layout."""

import pickle
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from hypvl.datasets.classification.elevater import (
    ELEVATER_SETS,
    elevater_entries,
    elevater_folder,
    elevater_prompts,
    elevater_set,
)
from hypvl.datasets.classification.zips import ZipReader
from hypvl.errors import ConfigError, DataError, MissingDataError
from tests.evaluation.miniatures import elevater as miniature


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    miniature.make(folder)
    return folder / "elevater"


def test_the_sets_with_their_metrics() -> None:
    assert len(ELEVATER_SETS) == 20
    entries = elevater_entries()
    assert Counter(entry.metric for entry in entries.values()) == {
        "accuracy": 14, "mean_per_class": 4, "roc_auc": 1, "map_11_points": 1,
    }  # fmt: skip
    assert [name for name, entry in entries.items() if entry.multi_label] == ["voc2007classification"]
    assert sum(entry.classes for entry in entries.values()) == 1151


@pytest.mark.parametrize("name", ELEVATER_SETS)
def test_every_set_is_read(name: str, root: Path) -> None:
    train, test = (elevater_set(name, root=root, split=split) for split in ("train", "test"))
    if name != "voc2007classification":
        assert test.labels == [0, 1, 0, 1] and len(train) == 8
        assert test.classes == ["red thing", "blue thing"]
        image, label = test[1]
        assert image.float().mean(dim=(1, 2)).tolist() == list(miniature.COLORS[1]) and label == 1
        assert test.ids[1].endswith("zip::test 1/1.jpg")
    assert test.prompts == elevater_prompts(name) and all("{}" in text for text in elevater_prompts(name))
    assert all(
        " : " in text or name == "kitti-distance" for text in elevater_prompts(name, style="subreddit")
    )


def test_several_labels_an_image(root: Path) -> None:
    voc = elevater_set("voc2007classification", root=root, split="val")
    assert voc.labels == [(0,), (1,), (0, 1), (0,), (1, 2), (2,)]
    assert voc[4][1] == (1, 2) and voc.keys[0] == "train.zip@VOC2007/000006.jpg"


def test_an_index_with_tabs_and_images_without_labels(tmp_path: Path) -> None:
    place = miniature.make_set(tmp_path, "voc2007classification")
    text = "test.zip@VOC2007/000000.jpg\t1,2\r\ntest.zip@VOC2007/000001.jpg\r\n"
    (place / "test_ic.txt").write_text(text)
    voc = elevater_set("voc2007classification", root=tmp_path)
    assert voc.labels == [(1, 2), ()] and voc[1][0].shape == (3, 7, 9)


def test_workers_and_pickles_read_for_themselves(root: Path) -> None:
    data = elevater_set("dtd", root=root)
    data[0]  # opens the file in this process
    assert pickle.loads(pickle.dumps(data))[3][1] == 1
    loader = DataLoader(data, batch_size=None, num_workers=2)  # type: ignore[arg-type, var-annotated]
    assert [label for _, label in loader] == [0, 1, 0, 1]


def test_folders_by_any_version_and_spelling(tmp_path: Path) -> None:
    for place in ("classification/Oxford_Flower_102_20211007", "oxford-flower-102_20190101", "Food-101"):
        (tmp_path / place).mkdir(parents=True)
    assert elevater_folder("flower102", root=tmp_path).name == "Oxford_Flower_102_20211007"
    assert elevater_folder("food101", root=tmp_path).name == "Food-101"
    with pytest.raises(
        MissingDataError, match=r"gtsrb: .* has no folder gtsrb_<version> .*labels\.txt, train\.txt"
    ):
        elevater_folder("gtsrb", root=tmp_path)
    with pytest.raises(MissingDataError, match=r"gone is not there .*labels.txt"):
        elevater_folder("gtsrb", root=tmp_path / "gone")


def test_missing_files_are_named(tmp_path: Path) -> None:
    place = miniature.make_set(tmp_path, "dtd")
    with pytest.raises(
        MissingDataError, match=r"no index of the val split; expected one of val\.txt, val_images\.txt"
    ):
        elevater_set("dtd", root=tmp_path, split="val")
    with pytest.raises(ConfigError, match="split 'valid': unknown"):
        elevater_set("dtd", root=tmp_path, split="valid")
    with pytest.raises(ConfigError, match=r"'dtdd': unknown .closest: dtd."):
        elevater_set("dtdd", root=tmp_path)
    (place / "test.zip").rename(place / "TEST.zip")
    assert len(elevater_set("dtd", root=tmp_path)) == 4
    (place / "TEST.zip").unlink()
    with pytest.raises(MissingDataError, match=r"test\.zip: is not there"):
        elevater_set("dtd", root=tmp_path)
    with zipfile.ZipFile(place / "test.zip", "w") as out:
        out.writestr("other.jpg", b"x")
    with pytest.raises(
        MissingDataError, match=r"none of its 4 images is there, such as test.zip@test 0/0.jpg"
    ):
        elevater_set("dtd", root=tmp_path)
    (place / "test.zip").write_bytes(b"no zip at all")
    with pytest.raises(DataError, match="cannot be read as a ZIP file"):
        elevater_set("dtd", root=tmp_path)
    (place / "labels.txt").unlink()
    with pytest.raises(MissingDataError, match=r"labels\.txt: is not there"):
        elevater_set("dtd", root=tmp_path)


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    place = miniature.make_set(tmp_path, "dtd")
    content = (place / "test.zip").read_bytes()
    at = content.index(b"\x89PNG")
    (place / "test.zip").write_bytes(
        content[:at] + b"none" + content[at + 4 :]
    )  # the CRC-32 is of the original
    with pytest.raises(DataError, match=r"test\.zip::test 0/0\.jpg: cannot be read \(Bad CRC-32"):
        elevater_set("dtd", root=tmp_path)[0]
    with (place / "test.txt").open("a") as file:
        file.write("test.zip@lost.jpg 1\nplain.jpg 0\n")
    data = elevater_set("dtd", root=tmp_path)
    with pytest.raises(DataError, match=r"lost\.jpg: is not in the ZIP file"):
        data[4]
    with pytest.raises(DataError, match=r"plain\.jpg: cannot be read"):
        data[5]
    with zipfile.ZipFile(place / "test.zip", "w") as out:
        out.writestr("test 0/0.jpg", b"no image")
    with pytest.raises(DataError, match=r"test 0/0\.jpg: cannot decode"):
        elevater_set("dtd", root=tmp_path)[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("test.zip@a.jpg", "line 1: is 'test.zip@a.jpg'; expected"),
        ("test.zip@a.jpg x", "line 1: is"),
        ("test.zip@a.jpg 2", r"line 1: has label 2; expected 0 \.\.\. 1"),
        ("test.zip@a.jpg 0,1", "line 1: has 2 labels; expected one"),
        ("../secret.zip@a.jpg 0", "names '../secret.zip', outside its folder"),
        ("/etc/secret.jpg 0", "names '/etc/secret.jpg', outside its folder"),
        ("", "names no images"),
    ],
)
def test_an_index_that_cannot_be_used(line: str, message: str, tmp_path: Path) -> None:
    place = miniature.make_set(tmp_path, "dtd")
    (place / "test.txt").write_text(line)
    with pytest.raises(DataError, match=message):
        elevater_set("dtd", root=tmp_path)


def test_a_member_that_is_a_trap_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("../../bomb", b"0" * 5000)
    monkeypatch.setattr("hypvl.datasets.classification.zips._LARGEST", 4999)
    with pytest.raises(DataError, match="has more than 4999 bytes"):
        ZipReader(tmp_path / "a.zip").read("../../bomb")
