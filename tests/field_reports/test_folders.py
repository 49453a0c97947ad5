"""Folders of images as people, operating systems and notebooks leave them."""

from pathlib import Path

import pytest

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.user_inputs import image_paths
from tests.evaluation.fakes import BLUE, GREEN, RED, image


def color(dataset: ImageFolderSet, index: int) -> list[int]:
    return dataset[index][0][:, 0, 0].tolist()


def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path: Path) -> None:
    """torchvision, timm: .ipynb_checkpoints, __MACOSX and `._` files become classes or images, and all labels shift."""
    image(tmp_path / "cat" / "1.png", RED)
    image(tmp_path / "dog" / "1.png", BLUE)
    for name in (".ipynb_checkpoints/1.png", "cat/.ipynb_checkpoints/1-checkpoint.png", ".git/x/1.png",
                 "cat/._1.png", "dog/.1.png", "__MACOSX/cat/1.png", "cat/.thumbnails/1.png"):  # fmt: skip
        image(tmp_path / name, GREEN)
    (tmp_path / "dog" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "dog" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    dataset = ImageFolderSet(tmp_path)
    assert dataset.classes == ["cat", "dog"]
    assert (dataset.keys, dataset.labels) == (["cat/1.png", "dog/1.png"], [0, 1])
    assert [color(dataset, i) for i in range(2)] == [list(RED), list(BLUE)]
    assert [Path(place).name for place in image_paths(tmp_path)] == ["1.png", "1.png"]


def test_a_set_may_lie_in_a_hidden_folder(tmp_path: Path) -> None:
    """timm: data under ~/.cache is taken for hidden and is empty; only what is below the set's folder may be judged."""
    image(tmp_path / ".cache" / "set" / "cat" / "1.png", RED)
    assert ImageFolderSet(tmp_path / ".cache" / "set").keys == ["cat/1.png"]
    assert len(image_paths(tmp_path / ".cache" / "set")) == 1


def test_upper_case_and_dots_in_names(tmp_path: Path) -> None:
    """timm: `IMG.0001.JPG` is left out as its extension is unknown; case and further dots must not matter."""
    for name in ("IMG.0001.PNG", "a.b.c.png", "photo.Jpeg", "x.TIF"):
        image(tmp_path / "cat" / name, RED)
    assert [key.removeprefix("cat/") for key in ImageFolderSet(tmp_path).keys] == [
        "IMG.0001.PNG", "a.b.c.png", "photo.Jpeg", "x.TIF",
    ]  # fmt: skip


def test_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    """torchvision: labels differ between machines as folders come in any order; they must be sorted."""
    for name in ("b", "B", "a", "10", "9", "ä"):
        image(tmp_path / name / "1.png", RED)
    assert ImageFolderSet(tmp_path).classes == ["10", "9", "B", "a", "b", "ä"]


@pytest.mark.parametrize("name", ["with space", "ünïcode 山", "a#b", "a=b", "v[1]", "{x}", "100%", "a.b"])
def test_odd_folders(tmp_path: Path, name: str) -> None:
    """MERU: brackets, signs or spaces in a path are read as a pattern; whatever exists must be found."""
    root = tmp_path / name
    image(root / "class_one" / "1.png", RED)
    for place in (root, f"{root}/", f"{root}/../{name}"):
        dataset = ImageFolderSet(place)
        assert (dataset.classes, dataset.keys) == (["class one"], ["class_one/1.png"])
        assert color(dataset, 0) == list(RED)
    assert len(image_paths(f"{root}//")) == 1


def test_relative_folders_stay_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm: a relative root breaks in workers that start elsewhere; keys must not depend on how the root is named."""
    image(tmp_path / "set" / "cat" / "1.png", RED)
    monkeypatch.chdir(tmp_path)
    assert (
        ImageFolderSet("set").keys == ImageFolderSet("./set/").keys == ImageFolderSet(tmp_path / "set").keys
    )
    (tmp_path / "link").symlink_to(tmp_path / "set")
    assert ImageFolderSet("link").keys == ["cat/1.png"]
