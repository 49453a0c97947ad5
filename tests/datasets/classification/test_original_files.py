"""CIFAR, STL-10, flowers and CUB in the files of their authors: what is unsafe, damaged or does not fit."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from hypvl.datasets.classification.original_files import cifar, cub, flowers102, stl10
from hypvl.errors import DataError
from tests.evaluation.miniatures import classification as miniatures


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_cifar_pickles_run_nothing(tmp_path: Path) -> None:
    miniatures.cifar100(tmp_path)
    folder = tmp_path / "cifar-100-python"
    content = {b"data": Trap(f"touch {tmp_path}/hacked"), b"fine_labels": []}
    (folder / "test").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"test: refused, because it asks to load posix.system"):
        cifar(folder, split="test", classes=100)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds a list"),
        ({b"data": [1]}, "has no uint8 data of 3,072 columns"),
        ({b"data": np.zeros((2, 3072))}, "has no uint8 data"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [1]}, "fine_labels do not belong to its 2"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_other_files_than_cifar_are_refused(
    content: object, message: str, protocol: int, tmp_path: Path
) -> None:
    miniatures.cifar100(tmp_path)
    (tmp_path / "cifar-100-python" / "test").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(DataError, match=message):
        cifar(tmp_path / "cifar-100-python", split="test", classes=100)


@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_cifar_as_either_numpy_names_its_core(core: bytes, tmp_path: Path) -> None:
    miniatures.cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    before = cifar(path.parent, split="test", classes=10)
    path.write_bytes(path.read_bytes().replace(b"numpy.core.", core))
    after = cifar(path.parent, split="test", classes=10)
    assert after.labels == before.labels
    assert (after[0][0] == before[0][0]).all()


def test_cifar_that_is_cut_off(tmp_path: Path) -> None:
    miniatures.cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes()[:200])
    with pytest.raises(DataError, match="test_batch: is not a whole pickle of data"):
        cifar(folder, split="test", classes=10)
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"one"]}))
    with pytest.raises(DataError, match=r"batches\.meta: has no 10 label_names"):
        cifar(folder, split="train", classes=10)


def test_stl10_is_stored_column_by_column(tmp_path: Path) -> None:
    miniatures.stl10(tmp_path)
    folder = tmp_path / "stl10_binary"
    pixels = np.fromfile(folder / "test_X.bin", np.uint8).reshape(4, 3, 96, 96)
    pixels[0, 1, 5, :] = 77  # channel 1, column 5, all rows
    pixels.tofile(folder / "test_X.bin")
    image, label = stl10(folder, split="test")[0]
    assert image[1, :, 5].eq(77).all() and image[1, :, 4].eq(0).all() and label == 0
    (folder / "class_names.txt").write_text("airplane\n")
    with pytest.raises(DataError, match=r"test_y\.bin: has labels outside 1 \.\.\. 1"):
        stl10(folder, split="test")
    pixels[:3].tofile(folder / "test_X.bin")
    with pytest.raises(DataError, match=r"test_X\.bin: has 82944 bytes; expected 4 x 27648"):
        stl10(folder, split="test")


def test_flowers_that_are_damaged(tmp_path: Path) -> None:
    miniatures.flowers102(tmp_path)
    folder = tmp_path / "flowers-102"
    (folder / "setid.mat").write_bytes(b"no matrix")
    with pytest.raises(DataError, match=r"setid\.mat: is damaged"):
        flowers102(folder, split="test", classes=[])


def test_cub_that_does_not_fit(tmp_path: Path) -> None:
    miniatures.cub2011(tmp_path)
    folder = tmp_path / "CUB_200_2011"
    labels = (folder / "image_class_labels.txt").read_text()
    (folder / "image_class_labels.txt").write_text(labels.replace("16 2\n", ""))
    with pytest.raises(DataError, match=r"image 16 of images\.txt lacks a class or a split"):
        cub(folder, split="test")
    (folder / "image_class_labels.txt").write_text(labels)
    names = (folder / "classes.txt").read_text()
    # Without its first class the second would have the first one's images.
    for lines in (names.split("\n", 1)[1], names.split("\n", 1)[0]):
        (folder / "classes.txt").write_text(lines)
        with pytest.raises(
            DataError, match=r"classes\.txt has 1 lines that are not the classes 1 \.\.\. 1, or"
        ):
            cub(folder, split="test")
    (folder / "classes.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"classes\.txt: has a line that is not `number value`"):
        cub(folder, split="test")
