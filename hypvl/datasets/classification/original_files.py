"""Readers of sets in the files their authors published: CIFAR, STL-10, Oxford flowers, CUB-200-2011.

torchvision reads all but CUB too, but compares MD5 sums of gigabytes each time, and unpickles CIFAR without
checking its content. The readers raise MissingDataError for a file that is not there, and DataError for one that is
damaged or has other content than published.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypvl.checks import natural_number
from hypvl.datasets.files import read_lines, require_files, require_folder
from hypvl.datasets.images import Images, LabelledImages
from hypvl.errors import DataError
from hypvl.io.files import read_regular
from hypvl.io.matlab import matlab_numbers
from hypvl.io.plain_pickle import load_plain
from hypvl.io.redact import printable

_LARGEST_MAT = 1_000_000  # bytes; the published ones have 15,000
_MOST_NUMBERS = 100_000


class ArrayImages:
    """Images in memory or in a mapped file.

    Args:
        pixels: uint8 (N, 3, h, w).
        transposed: The images are stored column by column (STL-10).
    """

    def __init__(self, pixels: np.ndarray, *, transposed: bool = False) -> None:
        self._pixels = pixels
        self._transposed = transposed

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w)."""
        image = torch.from_numpy(np.array(self._pixels[index]))
        return image.transpose(1, 2) if self._transposed else image


def cifar(folder: Path, *, split: str, classes: int) -> LabelledImages:
    """CIFAR's Python files, of 10 or 100 classes: ``cifar-10-batches-py``, ``cifar-100-python``; "train" or "test"."""
    require_folder(folder, f"the unpacked Python version of CIFAR-{classes}")
    if classes == 10:
        names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
        label_key, meta, names_key = b"labels", "batches.meta", b"label_names"
    else:
        names, label_key, meta, names_key = [split], b"fine_labels", "meta", b"fine_label_names"
    pixels: list[np.ndarray] = []
    labels: list[int] = []
    for name in names:
        content = _unpickle(folder / name)
        data = content.get(b"data")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
            raise DataError(f"{folder / name}: has no uint8 data of 3,072 columns; expected a file of CIFAR.")
        rows = content.get(label_key)
        if (
            not isinstance(rows, list)
            or len(rows) != len(data)
            or not all(_is_class(row, classes) for row in rows)
        ):
            raise DataError(
                f"{folder / name}: its {label_key.decode()} do not belong to its {len(data)} images; expected one "
                f"for each, from 0 to {classes - 1}."
            )
        pixels.append(data.reshape(-1, 3, 32, 32))  # (n, 3, h, w)
        labels += rows
    texts = _unpickle(folder / meta).get(names_key)
    if (
        not isinstance(texts, list)
        or len(texts) != classes
        or not all(isinstance(text, bytes) for text in texts)
    ):
        raise DataError(f"{folder / meta}: has no {classes} {names_key.decode()}; expected a file of CIFAR.")
    names = [text.decode("utf-8", "replace").replace("_", " ") for text in texts]
    return LabelledImages(
        ArrayImages(np.concatenate(pixels)), [int(label) for label in labels], classes=names
    )


def _is_class(label: Any, classes: int) -> bool:
    return isinstance(label, int | np.integer) and 0 <= int(label) < classes


def _unpickle(path: Path) -> dict[bytes, Any]:
    require_files([path], "unpack the archive of CIFAR again")
    try:
        with path.open("rb") as file:
            content = load_plain(path, file, encoding="bytes")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected a dictionary of CIFAR.")
    return content


def stl10(folder: Path, *, split: str) -> LabelledImages:
    """STL-10's binary files in the folder ``stl10_binary``, mapped into memory; split "train" or "test"."""
    require_folder(folder, "the unpacked files of STL-10")
    pixels, label_file = folder / f"{split}_X.bin", folder / f"{split}_y.bin"
    require_files([pixels, label_file], "unpack stl10_binary.tar.gz again")
    labels = np.fromfile(label_file, dtype=np.uint8)
    size = 3 * 96 * 96
    if len(labels) == 0 or pixels.stat().st_size != len(labels) * size:
        raise DataError(
            f"{pixels}: has {pixels.stat().st_size} bytes; expected {len(labels)} x {size} for the labels in "
            f"{label_file.name}."
        )
    classes = read_lines(folder / "class_names.txt")
    if labels.min() < 1 or labels.max() > len(classes):
        raise DataError(
            f"{label_file}: has labels outside 1 ... {len(classes)}, the lines of class_names.txt."
        )
    data = np.memmap(pixels, dtype=np.uint8, mode="r", shape=(len(labels), 3, 96, 96))
    return LabelledImages(
        ArrayImages(data, transposed=True), (labels.astype(int) - 1).tolist(), classes=classes
    )


def flowers102(folder: Path, *, split: str, classes: Sequence[str]) -> LabelledImages:
    """Oxford's 102 flowers: ``setid.mat``, ``imagelabels.mat`` and ``jpg/image_00001.jpg`` ... in ``flowers-102``.

    The split is "train", "val" or "test"; ``classes`` are the 102 names, which are in no file of the set.
    """
    require_folder(folder / "jpg", "the images of the 102 flowers")
    require_files([folder / "setid.mat", folder / "imagelabels.mat"], "download them")
    ids = _matlab_numbers(folder / "setid.mat", _FLOWER_SPLITS[split])
    labels = _matlab_numbers(folder / "imagelabels.mat", "labels")
    if any(not 1 <= i <= len(labels) for i in ids) or any(not 1 <= label <= len(classes) for label in labels):
        raise DataError(
            f"{folder}: setid.mat or imagelabels.mat names images or classes beyond the {len(labels)} labels and "
            f"{len(classes)} classes; download them again."
        )
    of_image = [labels[i - 1] - 1 for i in ids]
    return _files([f"jpg/image_{i:05d}.jpg" for i in ids], of_image, classes=classes, root=folder)


def _matlab_numbers(path: Path, name: str) -> list[int]:
    """The whole numbers of a variable in a small file of MATLAB."""
    try:
        data = read_regular(path, max_bytes=_LARGEST_MAT)
        numbers = matlab_numbers(data, name, max_numbers=_MOST_NUMBERS)
        return [int(number) for number in numbers]
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: is damaged ({printable(str(error))}); download it again.") from error


_FLOWER_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}


def cub(folder: Path, *, split: str) -> LabelledImages:
    """CUB-200-2011: ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt``, ``classes.txt``, ``images/``.

    They lie in ``CUB_200_2011``; the split is "train" or "test".
    """
    require_folder(folder, "the unpacked files of CUB-200-2011")
    columns = {}
    for name in ("images", "image_class_labels", "train_test_split", "classes"):
        rows = [line.split(maxsplit=1) for line in read_lines(folder / f"{name}.txt")]
        if any(len(row) != 2 or natural_number(row[0]) is None for row in rows):
            raise DataError(f"{folder / name}.txt: has a line that is not `number value`.")
        columns[name] = {int(row[0]): row[1].strip() for row in rows}
    try:
        chosen = [
            i for i in columns["images"] if columns["train_test_split"][i] == str(int(split == "train"))
        ]
        labels = [int(columns["image_class_labels"][i]) - 1 for i in chosen]
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{folder}: image {error} of images.txt lacks a class or a split in the other files."
        ) from error
    count = len(columns["classes"])
    if sorted(columns["classes"]) != list(range(1, count + 1)) or not set(labels) <= set(range(count)):
        raise DataError(
            f"{folder}: classes.txt has {count} lines that are not the classes 1 ... {count}, or "
            "image_class_labels.txt names others; unpack CUB_200_2011.tgz again."
        )
    names = [text.partition(".")[2].replace("_", " ") for _, text in sorted(columns["classes"].items())]
    return _files([columns["images"][i] for i in chosen], labels, classes=names, root=folder / "images")


def _files(
    names: Sequence[str], labels: Sequence[int], *, classes: Sequence[str], root: Path
) -> LabelledImages:
    """Images in files, by their names below ``root``, which are their keys."""
    keys = [Path(name).as_posix() for name in names]
    return LabelledImages(
        Images.from_files([root / name for name in names]), labels, classes=classes, keys=keys
    )
