"""Readers of labelled images, on miniatures of the real layouts."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from hypvl.datasets.classification.folders import ImageFolderSet, imagenet
from hypvl.datasets.classification.torchvision_sets import TorchvisionImages
from hypvl.datasets.classification.webdataset import WebDatasetSet
from hypvl.datasets.files import read_json
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import BLUE, GREEN, RED, broken, image as pil_image
from tests.evaluation.miniatures.classification import imagenet_folders


def color(image: object) -> list[int]:
    return image.float().mean(dim=(1, 2)).tolist()  # type: ignore[attr-defined]


def test_class_folders(tmp_path: Path) -> None:
    pil_image(tmp_path / "red_thing" / "b.png", RED)
    pil_image(tmp_path / "red_thing" / "deep" / "a.PNG", RED)
    pil_image(tmp_path / "blue" / "x.png", BLUE)
    (tmp_path / "blue" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    dataset = ImageFolderSet(tmp_path)
    assert dataset.classes == ["blue", "red thing"]
    assert dataset.keys == ["blue/x.png", "red_thing/b.png", "red_thing/deep/a.PNG"]
    assert dataset.labels == [0, 1, 1] and len(dataset) == 3
    image, label = dataset[0]
    assert image.shape == (3, 7, 9) and color(image) == list(BLUE) and label == 0


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    pil_image(tmp_path / "elsewhere" / "cats" / "1.png", GREEN)
    pil_image(tmp_path / "elsewhere" / "one.png", RED)
    root = tmp_path / "set"
    (root / "dog").mkdir(parents=True)
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "cats")  # a class
    (root / "dog" / "1.png").symlink_to(tmp_path / "elsewhere" / "one.png")  # an image
    (root / "dog" / "more").symlink_to(tmp_path / "elsewhere" / "cats")  # a folder inside a class
    (root / "dog" / "up").symlink_to(root / "dog")  # a circle
    linked = tmp_path / "link"
    linked.symlink_to(root)  # the set
    assert ImageFolderSet(linked).keys == ["cat/1.png", "dog/1.png", "dog/more/1.png"]


def test_class_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"gone: is not there \(looked in .*one folder per class"):
        ImageFolderSet(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="holds no class folders"):
        ImageFolderSet(tmp_path / "empty")
    (tmp_path / "empty" / "cat").mkdir()
    with pytest.raises(MissingDataError, match="1 class folders hold no images"):
        ImageFolderSet(tmp_path / "empty")
    pil_image(tmp_path / "empty" / "cat" / "1.png", RED)
    with pytest.raises(DataError, match="has 1 class folders; expected 2"):
        ImageFolderSet(tmp_path / "empty", class_names=["cat", "dog"])
    broken(tmp_path / "empty" / "cat" / "2.jpg")
    with pytest.raises(DataError, match=r"2\.jpg: cannot decode"):
        ImageFolderSet(tmp_path / "empty")[1]


def test_names_of_class_folders(tmp_path: Path) -> None:
    for name in ("cat", "dog", "owl"):
        pil_image(tmp_path / name / "1.png", RED)
    by_folder = ImageFolderSet(tmp_path, class_names={"owl": "an owl", "cat": "a cat", "dog": "a dog"})
    assert by_folder.classes == ["a cat", "a dog", "an owl"] and by_folder.folders == ["cat", "dog", "owl"]
    assert ImageFolderSet(tmp_path, class_names=["kitten", "Dog", "bird"]).classes == [
        "kitten",
        "Dog",
        "bird",
    ]
    with pytest.raises(DataError, match="has 'dog' for the folder 'cat', though there is a folder 'dog'"):
        ImageFolderSet(tmp_path, class_names=["dog", "cat", "owl"])
    with pytest.raises(DataError, match="'dog', 'owl' are without a name, and 'bird' is missing"):
        ImageFolderSet(tmp_path, class_names={"cat": "a cat", "bird": "a bird"})


def test_imagenet(tmp_path: Path) -> None:
    imagenet_folders(tmp_path / "val")
    pil_image(tmp_path / "val" / "n02123045" / "ILSVRC2012_val_00000001.JPEG", RED)
    dataset = imagenet(tmp_path)
    assert dataset.labels == [281] and dataset.classes[281] == "tabby cat"
    (tmp_path / "val" / "notes").mkdir()
    with pytest.raises(
        DataError, match="1001 class folders, of which 'notes' is not a class of ImageNet-1k, and none is"
    ):
        imagenet(tmp_path)
    # A folder of ImageNet-21k in place of another: as many, but every name in between would move.
    (tmp_path / "val" / "notes").rmdir()
    (tmp_path / "val" / "n01440764").rename(tmp_path / "val" / "n15093298")
    with pytest.raises(
        DataError, match=r"1000 class folders, .*'n15093298' is not a class .* 'n01440764' is missing"
    ):
        imagenet(tmp_path)
    with pytest.raises(MissingDataError, match="train: is not there"):
        imagenet(tmp_path, split="train")


def webdataset(root: Path, *, shards: int = 2) -> Path:
    (root / "test").mkdir(parents=True)
    (root / "classnames.txt").write_text("red\nblue\n\n")
    (root / "zeroshot_classification_templates.txt").write_text("a {c} one\nthe {c}\n")
    (root / "test" / "nshards.txt").write_text(f"{shards}\n")
    for shard in range(shards):
        with tarfile.open(root / "test" / f"{shard}.tar", "w") as tar:
            for i, (rgb, label) in enumerate([(RED, 0), (BLUE, 1)]):
                for name, content in ((f"s{i}.cls", str(label).encode()), (f"s{i}.png", png(rgb))):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return root


def png(rgb: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), rgb).save(buffer, format="PNG")
    return buffer.getvalue()


def test_webdataset_layout(tmp_path: Path) -> None:
    dataset = WebDatasetSet(webdataset(tmp_path))
    assert dataset.classes == ["red", "blue"] and dataset.prompts == ["a {c} one", "the {c}"]
    assert dataset.keys == ["0.tar/s0", "0.tar/s1", "1.tar/s0", "1.tar/s1"]
    assert dataset.labels == [0, 1, 0, 1]
    image, label = dataset[3]
    assert color(image) == list(BLUE) and label == 1
    (tmp_path / "zeroshot_classification_templates.txt").unlink()
    assert WebDatasetSet(tmp_path).prompts is None


def test_webdataset_layout_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"train/nshards\.txt: is not there"):
        WebDatasetSet(webdataset(tmp_path / "a"), split="train")
    lacking = webdataset(tmp_path / "b")
    (lacking / "test" / "1.tar").unlink()
    with pytest.raises(MissingDataError, match=r"lacks 1\.tar \(1 of 2 TARs"):
        WebDatasetSet(lacking)
    for text in ("many", "²", "0", "9" * 5000, "999999999"):
        (lacking / "test" / "nshards.txt").write_text(text)
        with pytest.raises(DataError, match=f"says '{text[:40]}'; expected one number of TARs, 1 to 100000"):
            WebDatasetSet(lacking)
    cut = webdataset(tmp_path / "c", shards=1)
    content = (cut / "test" / "0.tar").read_bytes()
    (cut / "test" / "0.tar").write_bytes(content[:1500])
    with pytest.raises(DataError, match=r"0\.tar: cut off.*download it again"):
        WebDatasetSet(cut)
    with tarfile.open(cut / "test" / "0.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("s1.txt"))
    with pytest.raises(DataError, match=r"0\.tar/s1: has no \.cls member; it has txt"):
        WebDatasetSet(cut)


def test_a_broken_label_and_a_broken_image_in_a_tar(tmp_path: Path) -> None:
    root = webdataset(tmp_path, shards=1)
    content = (root / "test" / "0.tar").read_bytes()
    (root / "test" / "0.tar").write_bytes(content.replace(b"\x89PNG", b"none", 1))
    with pytest.raises(DataError, match=r"0\.tar/s0: cannot decode"):
        WebDatasetSet(root)[0]
    for label in ("cat", "²", "-1"):
        with tarfile.open(root / "test" / "0.tar", "w") as tar:
            entry = tarfile.TarInfo("s.cls")
            entry.size = len(label.encode())
            tar.addfile(entry, io.BytesIO(label.encode()))
        with pytest.raises(DataError, match=rf"its \.cls says '{label}'; expected a class number"):
            WebDatasetSet(root)


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: is not valid JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="UTF-8"):
        read_json(tmp_path / "a.json")


def test_images_of_torchvision_are_decoded_as_all_others() -> None:
    clear = Image.new("RGBA", (4, 3), (0, 0, 0, 0))
    data = TorchvisionImages([(clear, 0)])
    assert data[0].shape == (3, 3, 4) and (data[0] == 255).all()
