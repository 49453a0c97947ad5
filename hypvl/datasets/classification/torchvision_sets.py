"""Published splits of classification sets, read from the files as they come from their sources.

torchvision finds the files and reads the labels. Images in files are read by hypvl: torchvision leaves the format to
PIL, which starts another program for some of them (Ghostscript for EPS), and decodes bombs.
"""

import importlib.util
import math
import pickle
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hypvl.datasets.catalog.entries import SetEntry, class_names
from hypvl.datasets.classification import original_files
from hypvl.datasets.classification.folder_names import usual_names
from hypvl.datasets.classification.folders import imagenet, known_folders
from hypvl.datasets.images import Images, LabelledImages
from hypvl.errors import DataError, MissingDataError
from hypvl.io.images import image_tensor
from hypvl.io.redact import printable


def read_published(entry: SetEntry, root: Path, split: str) -> LabelledImages:
    """A published split of a set (one of ``entry.published``), below the folder of the sets.

    Raises:
        MissingDataError: when files are not there, naming them and their source.
        DataError: when they cannot be read.
    """
    arguments = entry.published[split]
    folder = root / entry.folder.format(**arguments)
    if not folder.is_dir():
        raise entry.missing(folder, "is not there")
    try:
        if entry.reader == "folders":
            if entry.name == "imagenet":
                return imagenet(folder.parent, split=folder.name)
            return known_folders(folder, set_name=entry.name)
        if entry.reader.startswith("torchvision:"):
            return _torchvision(entry, root, folder, arguments)
        if entry.reader == "webdataset":  # and not there, or it would have been read
            raise MissingDataError(f"{folder / 'classnames.txt'} is not there")
        return _READERS[entry.reader](folder, split, entry)
    except MissingDataError as error:
        raise entry.missing(folder, f"is incomplete ({str(error).rstrip('.')})") from error


#: Readers of original files: (folder, split, entry) -> the set.
_READERS: dict[str, Callable[[Path, str, SetEntry], LabelledImages]] = {
    "cifar10": lambda folder, split, entry: original_files.cifar(folder, split=split, classes=10),
    "cifar100": lambda folder, split, entry: original_files.cifar(folder, split=split, classes=100),
    "stl10": lambda folder, split, entry: original_files.stl10(folder, split=split),
    "flowers102": lambda folder, split, entry: original_files.flowers102(
        folder, split=split, classes=class_names("flowers102") or ()
    ),
    "cub": lambda folder, split, entry: original_files.cub(folder, split=split),
}


#: What torchvision, and the packages that it reads files with, raise where one is incomplete or damaged; besides, the
#: errors of scipy for MATLAB's files are their own (:func:`_damage`).
_DAMAGE = (
    RuntimeError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError,
    MemoryError, EOFError, pickle.UnpicklingError, struct.error, zlib.error,
)  # fmt: skip
_LARGEST_CHUNK = 1 << 28  # bytes of a part of an HDF5 file, which is read whole


def _damage() -> tuple[type[Exception], ...]:
    from scipy.io.matlab import MatReadError

    return (*_DAMAGE, MatReadError)


def _pcam_labels(dataset: Any) -> Sequence[int]:
    names = dataset._FILES[dataset._split]
    sizes = []
    for name, key, sides in ((names["images"][0], "x", (96, 96, 3)), (names["targets"][0], "y", (1, 1, 1))):
        with dataset.h5py.File(Path(dataset._base_folder) / name) as file:
            array = file[key]
            if array.shape[1:] != sides or array.dtype != "uint8":
                raise ValueError(f"{name}: {key} is {array.dtype} {array.shape}; expected uint8 (N, {sides})")
            if math.prod(array.chunks or (1,)) > _LARGEST_CHUNK or array.size > (1 << 20) * math.prod(sides):
                raise ValueError(f"{name}: {key} {array.shape} in parts of {array.chunks} is too large")
            sizes.append(len(array))
            values = array[:, 0, 0, 0] if key == "y" else ()
    if sizes[0] != sizes[1]:
        raise ValueError(f"{sizes[0]} images and {sizes[1]} labels")
    return [int(value) for value in values]


#: Labels of torchvision's sets without reading their images.
_LABELS: dict[str, Callable[[Any], Sequence[int]]] = {
    "Food101": lambda dataset: dataset._labels,
    "StanfordCars": lambda dataset: [label for _, label in dataset._samples],
    "FGVCAircraft": lambda dataset: dataset._labels,
    "DTD": lambda dataset: dataset._labels,
    "OxfordIIITPet": lambda dataset: dataset._labels,
    "Country211": lambda dataset: dataset.targets,
    "MNIST": lambda dataset: dataset.targets,
    "CLEVRClassification": lambda dataset: [count - 3 for count in dataset._labels],  # 3 ... 10 objects
    "PCAM": _pcam_labels,
    "RenderedSST2": lambda dataset: [label for _, label in dataset._samples],
    "GTSRB": lambda dataset: [label for _, label in dataset._samples],
}


def _paths(dataset: Any) -> list[Path] | None:
    """Files of the images, where torchvision keeps a list of them."""
    for name in ("_image_files", "_images"):
        if hasattr(dataset, name):
            return [Path(path) for path in getattr(dataset, name)]
    for name in ("_samples", "samples"):
        if hasattr(dataset, name):
            return [Path(path) for path, _ in getattr(dataset, name)]
    return None


def _torchvision(entry: SetEntry, root: Path, folder: Path, arguments: Mapping[str, Any]) -> LabelledImages:
    import torchvision

    cls = entry.reader.partition(":")[2]
    if cls == "PCAM" and importlib.util.find_spec("h5py") is None:
        raise DataError(
            f"{entry.name}: {folder} holds HDF5 files, which the package h5py reads; pip install h5py, or put the set "
            f"there in the WebDataset layout ({entry.files[1].removeprefix('or ')})."
        )
    try:
        dataset = getattr(torchvision.datasets, cls)(str(root), **arguments)
        labels = [int(label) for label in _LABELS[cls](dataset)]
    except _damage() as error:
        what = printable(str(error).partition("\n")[0]) or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's message tells how to run it
            what = "a file holds a pickle of more than tensors, which is not run"
        what = what.replace(" You can use download=True to download it", "").rstrip(".")
        reason = f"torchvision.datasets.{cls} cannot read it: {what}"
        if isinstance(error, FileNotFoundError) or "not found" in what.lower():
            raise entry.missing(folder, f"is incomplete ({reason})") from error
        raise DataError(f"{entry.name}: {folder} is damaged ({reason}); complete the set there.") from error
    if cls == "Country211":  # its classes are folders
        names = usual_names(dataset.classes, set_name=entry.name, where=folder / dataset._split)
    else:
        names = class_names(entry.name)  # in the order of the labels, which are in the files
    classes = [name.replace("_", " ") for name in (dataset.classes if names is None else names)]
    paths = _paths(dataset)
    images = Images(TorchvisionImages(dataset)) if paths is None else Images.from_files(paths)
    if len(images) != len(labels) or not set(labels) <= set(range(len(classes))):
        raise DataError(
            f"{entry.name}: {folder} is damaged ({len(images)} images, {len(labels)} labels, of them "
            f"{sum(not 0 <= label < len(classes) for label in labels)} outside 0 ... {len(classes) - 1}); complete the "
            "set there."
        )
    return LabelledImages(images, labels, classes=classes)


class TorchvisionImages:
    """The images of a set of torchvision that keeps arrays of pixels (MNIST, PCAM) as uint8 tensors.

    Args:
        dataset: Made by torchvision; ``dataset[i] -> (PIL image, label)``.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w); raises DataError naming the set and the position."""
        try:
            return image_tensor(self._dataset[index][0])
        except _damage() as error:
            name = type(self._dataset).__name__
            raise DataError(f"{name}[{index}]: cannot be read ({type(error).__name__}: {error}).") from error
