"""Data sets by name: how they are read from the folder they lie in."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypvl.errors import ConfigError, DataError
from hypvl.evaluation.datasets.classification import (
    ImageFolderSet,
    TorchvisionSet,
    imagenet,
    read_json,
    require_folder,
)
from hypvl.evaluation.datasets.prompts import generic_templates, imagenet_templates
from hypvl.evaluation.datasets.retrieval import CaptionedImages, jsonl
from hypvl.evaluation.datasets.splits import Subset, share, shuffled
from hypvl.evaluation.protocol import ClassificationSet, MissingDataError


def _attribute(name: str) -> Callable[[Any], Sequence[int]]:
    return lambda dataset: getattr(dataset, name)


def _samples(dataset: Any) -> Sequence[int]:
    return [label for _, label in dataset._samples]


def _pcam_labels(dataset: Any) -> Sequence[int]:
    targets = Path(dataset._base_folder) / dataset._FILES[dataset._split]["targets"][0]
    with dataset.h5py.File(targets) as file:
        return file["y"][:, 0, 0, 0].tolist()  # (N, 1, 1, 1) in the file


def _by_split(*names: str, **renamed: str) -> dict[str, dict[str, Any]]:
    """``split=name`` for each split; ``val="valid"`` where torchvision calls it otherwise."""
    return {name: {"split": name} for name in names} | {k: {"split": v} for k, v in renamed.items()}


_TRAIN_FLAG = {"train": {"train": True}, "test": {"train": False}}
_WITH_VAL = _by_split("train", "val", "test")


@dataclass(frozen=True)
class _Torchvision:
    """How torchvision makes a test split, and where it keeps the labels.

    Attributes:
        cls: Class in ``torchvision.datasets``.
        labels: Gives the label of each picture without reading the pictures.
        folder: Where below the root the set lies, for the message when it is missing.
        splits: Arguments that choose each split torchvision has.
        classes: Names, for a class without ``classes``.
    """

    cls: str
    labels: Callable[[Any], Sequence[int]]
    folder: str
    splits: dict[str, dict[str, Any]] = field(default_factory=lambda: _by_split("train", "test"))
    classes: tuple[str, ...] | None = None


_TORCHVISION = {
    "food101": _Torchvision("Food101", _attribute("_labels"), "food-101"),
    "cifar10": _Torchvision("CIFAR10", _attribute("targets"), "cifar-10-batches-py", _TRAIN_FLAG),
    "cifar100": _Torchvision("CIFAR100", _attribute("targets"), "cifar-100-python", _TRAIN_FLAG),
    "cars": _Torchvision("StanfordCars", _samples, "stanford_cars"),
    "aircraft": _Torchvision("FGVCAircraft", _attribute("_labels"), "fgvc-aircraft-2013b", _WITH_VAL),
    "dtd": _Torchvision("DTD", _attribute("_labels"), "dtd", _WITH_VAL),
    "pets": _Torchvision(
        "OxfordIIITPet", _attribute("_labels"), "oxford-iiit-pet", _by_split("test", train="trainval")
    ),
    "flowers102": _Torchvision("Flowers102", _attribute("_labels"), "flowers-102", _WITH_VAL),
    "stl10": _Torchvision("STL10", _attribute("labels"), "stl10_binary"),
    "country211": _Torchvision(
        "Country211", _attribute("targets"), "country211", _by_split("train", "test", val="valid")
    ),
    "mnist": _Torchvision("MNIST", _attribute("targets"), "MNIST/raw", _TRAIN_FLAG),
    "pcam": _Torchvision("PCAM", _pcam_labels, "pcam", _WITH_VAL, classes=("healthy tissue", "tumor tissue")),
    "sst2": _Torchvision("RenderedSST2", _samples, "rendered-sst2", _WITH_VAL),
}
#: Names that :func:`classification_set` takes.
CLASSIFICATION_SETS: tuple[str, ...] = ("imagenet", *_TORCHVISION)
#: What every set can be asked for.
SPLITS: tuple[str, ...] = ("train", "val", "test")
_VALIDATION_SHARE = {"food101": 0.1, "cifar10": 0.1, "cifar100": 0.1}
#: Names that :func:`demo_classification_set` takes: the folders that scripts/make_demo_data.py writes.
DEMO_CLASSIFICATION_SETS: tuple[str, ...] = (
    "digits", "scenes_color_seen", "scenes_color_heldout", "scenes_shape_seen", "scenes_shape_heldout",
)  # fmt: skip


def classification_set(
    name: str, *, root: str | Path = "./datasets/eval", split: str = "test", download: bool = False
) -> ClassificationSet:
    """A split of a known set.

    A set without a validation split has 20 % of its training pictures (Food-101 and CIFAR: 10 %) as ``"val"`` and
    the rest as ``"train"``, in the order of :func:`hypvl.evaluation.datasets.splits.shuffled`.

    Args:
        name: One of :data:`CLASSIFICATION_SETS`.
        root: Folder of the sets: ImageNet in ``root/imagenet/val``, torchvision's where torchvision puts them.
        split: ``"train"``, ``"val"`` or ``"test"``.
        download: Fetch the set when it is not there.

    Raises:
        ConfigError: for an unknown name or split.
        MissingDataError: when the set is not there.
        DataError: when it is there and cannot be read.
    """
    _known(name, CLASSIFICATION_SETS)
    if split not in SPLITS:
        raise ConfigError(f"data set {name!r}: got split {split!r}; expected one of {', '.join(SPLITS)}.")
    published = {"test": "val"} if name == "imagenet" else dict.fromkeys(_TORCHVISION[name].splits)
    if split == "test" or ("val" in published and name != "imagenet"):
        return _published(name, Path(root), "val" if name == "imagenet" else split)
    whole = _published(name, Path(root), "train")
    cut = 1.0 - _VALIDATION_SHARE.get(name, 0.2)
    order = shuffled(len(whole), key=name)
    part = share(order, 0.0, cut) if split == "train" else share(order, cut, 1.0)
    return Subset(whole, part, name=f"{name} {split}")


def _published(name: str, root: Path, split: str) -> ClassificationSet:
    if name == "imagenet":
        return imagenet(root / "imagenet", split=split)
    import torchvision

    entry = _TORCHVISION[name]
    folder = root / entry.folder
    if not folder.is_dir():
        raise MissingDataError(
            f"{name}: {folder} is not there (looked in {Path.cwd()}); download it with "
            f"torchvision.datasets.{entry.cls} into {root}, or give another root by an override."
        )
    try:
        dataset = getattr(torchvision.datasets, entry.cls)(str(root), **entry.splits[split])
        labels = entry.labels(dataset)
    except (
        RuntimeError,
        OSError,
        ValueError,
        KeyError,
    ) as error:  # torchvision's ways to say it is incomplete
        what = str(error).replace(" You can use download=True to download it", "").rstrip(".")
        raise DataError(
            f"{name}: torchvision.datasets.{entry.cls} cannot read {folder} ({what}); complete the set there."
        ) from error
    classes = dataset.classes if entry.classes is None else entry.classes
    return TorchvisionSet(dataset, classes=[_readable(text) for text in classes], labels=labels)


def classification_prompts(name: str) -> list[str]:
    """Templates for a set of :func:`classification_set`: CLIP's 80 for ImageNet, else the generic ones."""
    _known(name, CLASSIFICATION_SETS)
    return imagenet_templates() if name == "imagenet" else generic_templates()


def demo_classification_set(name: str, *, root: str | Path = "./datasets/demo") -> ImageFolderSet:
    """A test set of the demo data: class folders and ``classes.json`` with names and prompts.

    Args:
        name: One of :data:`DEMO_CLASSIFICATION_SETS`.
        root: What scripts/make_demo_data.py wrote.

    Raises:
        ConfigError: for an unknown name.
        MissingDataError: when it has not been made.
        DataError: when ``classes.json`` is not what it should be.
    """
    _known(name, DEMO_CLASSIFICATION_SETS)
    folder = Path(root) / "eval" / name
    require_folder(folder, "the demo data (python scripts/make_demo_data.py)")
    content = read_json(folder / "classes.json")
    try:
        classes, prompts = list(content["classes"]), dict(content["prompts"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder / 'classes.json'}: lacks {error}; expected classes and prompts by class."
        ) from error
    return ImageFolderSet(folder, class_names=classes, prompts=prompts)


def demo_retrieval_set(*, root: str | Path = "./datasets/demo") -> CaptionedImages:
    """Demo scenes of two objects with their full captions.

    Args:
        root: What scripts/make_demo_data.py wrote.

    Raises:
        MissingDataError: when it has not been made.
    """
    folder = Path(root) / "eval" / "retrieval"
    require_folder(folder, "the demo data (python scripts/make_demo_data.py)")
    return jsonl(folder / "scenes.jsonl")


def _known(name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise ConfigError(
            f"data set {name!r}: unknown (closest: {near[0]}); expected one of {', '.join(names)}."
        )


def _readable(name: str) -> str:
    """``"7 - seven"`` -> ``"seven"`` (MNIST); ``"aquarium_fish"`` -> ``"aquarium fish"``."""
    return name.rpartition(" - ")[2].replace("_", " ")
