"""ITRA's and I0T's folders of classification sets: one folder per set and split, class folders inside.

A set that is not there is a MissingDataError, folders that are called otherwise a DataError, an unknown name or split a
ConfigError.
"""

from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.catalog.entries import check_name
from hypvl.datasets.classification.by_name import classification_set
from hypvl.datasets.classification.folder_names import listed
from hypvl.datasets.classification.folders import ImageFolderSet, imagenet, known_folders
from hypvl.datasets.classification.prompts import set_templates
from hypvl.datasets.classification.splits import without_classes
from hypvl.datasets.protocol import ClassificationSet
from hypvl.errors import DataError

#: Folder -> the splits it has, and the set whose names and prompts it takes.
_TREE: dict[str, tuple[tuple[str, ...], str]] = {
    "imagenet": (("test", "train"), "imagenet"),
    "birdsnap": (("test",), "birdsnap"),
    "country211": (("test",), "country211"),
    "flowers102": (("test",), "flowers102"),
    "gtsrb": (("test",), "gtsrb"),
    "stanford_cars": (("test",), "cars"),
    "ucf101": (("testlist01", "testlist02", "testlist03"), "ucf101"),
}
#: Names that :func:`itra_set` takes; ITRA's COCO is read by :func:`hypvl.datasets.retrieval.coco.coco`.
ITRA_SETS: tuple[str, ...] = tuple(_TREE)
#: Of Birdsnap's 500 classes in sorted order, those without test images that can still be had.
BIRDSNAP_LEFT_OUT: tuple[int, ...] = (46, 66, 123, 299, 302, 351, 403, 436, 465)


@configurable("evaluate")
def itra_set(name: str, *, root: str | Path, split: str | None = None) -> ClassificationSet:
    """A set of ITRA's tree: ``root/<name>/<split>/<class>/*``.

    ImageNet's folders are the 1,000 WordNet ids. Of Country211, flowers and GTSRB each folder gets the usual name of
    its class by what it is called (:func:`~hypvl.datasets.classification.folder_names.usual_names`); elsewhere the
    folders have the names. Of Birdsnap's 500 classes nine are left out, as ITRA does.

    Args:
        name: One of :data:`ITRA_SETS`.
        split: As the folder is called; None = "test", of UCF101 "testlist01".
    """
    check_name(name, ITRA_SETS, what="ITRA set")
    splits, same_as = _TREE[name]
    split = splits[0] if split is None else split
    check_name(split, splits, what=f"ITRA set {name!r}: split")
    folder = Path(root) / name
    if name == "imagenet":
        dataset = imagenet(folder, split=split)
    else:
        dataset = known_folders(folder / split, set_name=same_as)
    dataset.prompts = set_templates(same_as)
    if name == "birdsnap" and len(dataset.classes) == 500:
        _check_left_out(dataset)
        return without_classes(dataset, BIRDSNAP_LEFT_OUT)
    return dataset


def _check_left_out(dataset: ImageFolderSet) -> None:
    """Refuse folders whose order is not the published one: the classes to leave out are known by position only."""
    filled = set(dataset.labels)
    empty = [name for i, name in enumerate(dataset.folders) if i not in filled and i not in BIRDSNAP_LEFT_OUT]
    wrong = [dataset.folders[i] for i in BIRDSNAP_LEFT_OUT if i in filled]
    if empty and wrong:
        raise DataError(
            f"{dataset.root}: {listed(empty)} without images, while {listed(wrong)} at the places of the nine "
            "classes that are left out; expected the 500 folders as they are published."
        )


#: Names that :func:`i0t_classification_set` takes.
I0T_CLASSIFICATION_SETS: tuple[str, ...] = ("cifar100", "birdsnap")


@configurable("evaluate")
def i0t_classification_set(name: str, *, root: str | Path, download: bool = False) -> ClassificationSet:
    """A test set of I0T: ``root/zeroshot_datasets/{cifar-100-python, birdsnap/test/<class>/*}``.

    Its captions (GOLD files) are read by :func:`hypvl.datasets.retrieval.coco.gold` and ``nocaps``.

    Args:
        name: One of :data:`I0T_CLASSIFICATION_SETS`.
        download: Fetch CIFAR-100 when it is not there; Birdsnap has no source.
    """
    check_name(name, I0T_CLASSIFICATION_SETS, what="I0T set")
    folder = Path(root) / "zeroshot_datasets"
    if name == "cifar100":
        return classification_set("cifar100", root=folder, download=download)
    dataset = ImageFolderSet(folder / "birdsnap" / "test")
    dataset.prompts = set_templates("birdsnap")
    return dataset
