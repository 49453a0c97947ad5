"""Published splits of classification sets, read from the files as they come from their sources."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hypvl.datasets.catalog.entries import SetEntry, class_names
from hypvl.datasets.classification import original_files
from hypvl.datasets.classification.folder_names import usual_names
from hypvl.datasets.classification.folders import imagenet, known_folders
from hypvl.datasets.images import LabelledImages
from hypvl.errors import DataError, MissingDataError
from hypvl.io.images import image_tensor


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


def _pcam_labels(dataset: Any) -> Sequence[int]:
    targets = Path(dataset._base_folder) / dataset._FILES[dataset._split]["targets"][0]
    with dataset.h5py.File(targets) as file:
        return file["y"][:, 0, 0, 0].tolist()  # (N, 1, 1, 1) in the file


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


def _paths(dataset: Any) -> list[str] | None:
    """Files of the images, where torchvision keeps a list of them."""
    for name in ("_image_files", "_images"):
        if hasattr(dataset, name):
            return [str(path) for path in getattr(dataset, name)]
    for name in ("_samples", "samples"):
        if hasattr(dataset, name):
            return [str(path) for path, _ in getattr(dataset, name)]
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
    # torchvision's ways to say that it is incomplete.
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        what = str(error).replace(" You can use download=True to download it", "").rstrip(".")
        reason = f"torchvision.datasets.{cls} cannot read it: {what}"
        if isinstance(error, FileNotFoundError) or "not found" in what.lower():
            raise entry.missing(folder, f"is incomplete ({reason})") from error
        raise DataError(f"{entry.name}: {folder} is damaged ({reason}); complete the set there.") from error
    if cls == "Country211":  # its classes are folders
        names = usual_names(dataset.classes, set_name=entry.name, where=folder / dataset._split)
    else:
        names = class_names(entry.name)  # in the order of the labels, which are in the files
    classes = [name.replace("_", " ") for name in (dataset.classes if names is None else names)]
    return LabelledImages(TorchvisionImages(dataset, ids=_paths(dataset)), labels, classes=classes)


class TorchvisionImages:
    """The images of a set of torchvision as uint8 tensors.

    Args:
        dataset: Made by torchvision; ``dataset[i] -> (PIL image, label)``.
        ids: Where each image is, for sets of image files.
    """

    def __init__(self, dataset: Any, *, ids: Sequence[str] | None = None) -> None:
        self._dataset = dataset
        self.ids = ids

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w); raises DataError naming the set and the position."""
        try:
            return image_tensor(self._dataset[index][0])
        except (OSError, SyntaxError, ValueError) as error:  # what PIL raises on damaged files
            name = type(self._dataset).__name__
            raise DataError(f"{name}[{index}]: cannot be read ({type(error).__name__}: {error}).") from error
