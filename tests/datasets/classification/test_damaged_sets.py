"""Sets whose labels torchvision reads: what is damaged or hostile is one sentence that names the set."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hypvl.datasets.classification.by_name import classification_set
from hypvl.errors import DataError
from tests.evaluation.miniatures import classification as miniatures


def refused(name: str, root: Path, words: str, *, split: str = "test") -> None:
    with pytest.raises(DataError, match=words) as caught:
        classification_set(name, root=root, split=split)
    assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 3, struct.pack(">iiii", 0x8FF, 1, 1, 1), struct.pack(">iiii", 0x10803, 4, 28, 28),
        struct.pack(">iiii", 0x803, 2**31 - 1, 28, 28) + b"a", struct.pack(">iiii", 0xD03, 4, 28, 28) + b"abc",
    ],
)  # fmt: skip
def test_damaged_files_of_mnist(tmp_path: Path, content: bytes) -> None:
    miniatures.mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(content)
    refused("mnist", tmp_path, "raw is damaged .torchvision.datasets.MNIST cannot read it")


def test_a_pickle_in_the_place_of_old_files_of_mnist(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "processed"
    folder.mkdir(parents=True)
    (tmp_path / "MNIST" / "raw").mkdir()
    for name in ("training.pt", "test.pt"):
        (folder / name).write_bytes(pickle.dumps(Path))
    refused("mnist", tmp_path, "MNIST cannot read it")


def test_labels_outside_the_classes(tmp_path: Path) -> None:
    miniatures.mnist(tmp_path)
    labels = struct.pack(">ii", 0x801, 4) + bytes([0, 1, 10, 255])
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(labels)
    refused("mnist", tmp_path, r"4 images, 4 labels, of them 2 outside 0 \.\.\. 9")


def pcam(root: Path, images: Callable[..., object], labels: Callable[..., object]) -> None:
    h5py = pytest.importorskip("h5py")
    (root / "pcam").mkdir()
    for kind, key, write in (("x", "x", images), ("y", "y", labels)):
        with h5py.File(root / "pcam" / f"camelyonpatch_level_2_split_test_{kind}.h5", "w") as file:
            write(file, key)


def pixels(file: object, key: str) -> None:
    file.create_dataset(key, data=np.zeros((4, 96, 96, 3), dtype=np.uint8))  # type: ignore[attr-defined]


def ones(file: object, key: str) -> None:
    file.create_dataset(key, data=np.array([0, 1, 0, 1], dtype=np.uint8).reshape(4, 1, 1, 1))  # type: ignore[attr-defined]


def test_pcam_in_its_own_files(tmp_path: Path) -> None:
    pcam(tmp_path, pixels, ones)
    dataset = classification_set("pcam", root=tmp_path)
    assert dataset.labels == [0, 1, 0, 1] and dataset[3][0].shape == (3, 96, 96)


def claims(*shape: int, chunks: tuple[int, ...] | None = None, dtype: str = "uint8") -> Callable[..., object]:
    """A few bytes that claim an array."""
    return lambda file, key: file.create_dataset(
        key, shape=shape, chunks=chunks, dtype=dtype, compression="gzip"
    )


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (claims(10**12, 96, 96, 3), claims(10**12, 1, 1, 1), "is too large"),
        (pixels, claims(10**9, 1, 1, 1), "is too large"),
        (claims(20_000, 96, 96, 3, chunks=(20_000, 96, 96, 3)), ones, "is too large"),
        (claims(4, 60_000, 60_000, 3), ones, "expected uint8"),
        (claims(4, 96, 96, 3, dtype="f8"), ones, "expected uint8"),
        (pixels, claims(4, dtype="uint8"), "expected uint8"),
        (claims(3, 96, 96, 3), ones, "3 images and 4 labels"),
        (lambda file, key: file.create_group(key), ones, "PCAM cannot read it"),
        (lambda file, key: None, ones, "PCAM cannot read it"),
    ],
)
def test_what_hdf5_files_of_pcam_claim(
    tmp_path: Path, images: Callable[..., object], labels: Callable[..., object], words: str
) -> None:
    pcam(tmp_path, images, labels)
    refused("pcam", tmp_path, words)
