"""ITRA's folder of classification sets: one folder per set and split, class folders inside."""

from pathlib import Path

from hypvl.errors import ConfigError
from hypvl.evaluation.datasets.classification import ImageFolderSet, imagenet
from hypvl.evaluation.datasets.entries import check_name, class_names
from hypvl.evaluation.datasets.native import spaced
from hypvl.evaluation.datasets.prompts import set_templates
from hypvl.evaluation.datasets.splits import WithoutClasses
from hypvl.evaluation.protocol import ClassificationSet

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
#: Names that :func:`itra_set` takes; ITRA's COCO is read by :func:`hypvl.evaluation.datasets.retrieval.coco`.
ITRA_SETS: tuple[str, ...] = tuple(_TREE)
#: Of Birdsnap's 500 classes in sorted order, those without test pictures that can still be had.
BIRDSNAP_LEFT_OUT: tuple[int, ...] = (46, 66, 123, 299, 302, 351, 403, 436, 465)


def itra_set(name: str, *, root: str | Path, split: str | None = None) -> ClassificationSet:
    """A set of ITRA's tree: ``root/<name>/<split>/<class>/*``.

    ImageNet's folders are the 1,000 WordNet ids. Elsewhere the classes are the folders in sorted order, or in the
    order of their numbers where they are numbers; they get their usual names where these are not in the folders'
    names and all classes are there. Of Birdsnap's 500 classes nine are left out, as ITRA does.

    Args:
        name: One of :data:`ITRA_SETS`.
        root: The folder of the tree.
        split: As the folder is called; None = "test", of UCF101 "testlist01".

    Raises:
        ConfigError: for an unknown name or split.
        MissingDataError: when it is not there.
        DataError: when it cannot be read.
    """
    check_name(name, ITRA_SETS, what="ITRA set")
    splits, same_as = _TREE[name]
    split = splits[0] if split is None else split
    if split not in splits:
        raise ConfigError(f"ITRA set {name!r}: got split {split!r}; expected one of {', '.join(splits)}.")
    folder = Path(root) / name
    if name == "imagenet":
        whole = imagenet(folder, split=split)
        whole.prompts = set_templates(name)
        return whole
    dataset = ImageFolderSet(folder / split)
    dataset.classes = _names(dataset.classes, class_names(same_as))
    dataset.prompts = set_templates(same_as)
    if name == "birdsnap" and len(dataset.classes) == 500:
        return WithoutClasses(dataset, BIRDSNAP_LEFT_OUT)
    return dataset


def _names(folders: list[str], known: tuple[str, ...] | None) -> list[str]:
    if known is None or len(known) != len(folders):
        return [spaced(name) for name in folders]
    if not all(name.isdigit() for name in folders):
        return list(known) if not _same(folders, known) else folders
    # "1", "10", "100", "2" ...: sorted as texts, meant as numbers, from 0 or from 1.
    first = min(map(int, folders))
    if sorted(map(int, folders)) != list(range(first, first + len(folders))):
        return list(known)
    return [known[int(name) - first] for name in folders]


def _same(folders: list[str], known: tuple[str, ...]) -> bool:
    """Whether the folders are called by the names themselves, in whatever order."""
    return {name.lower() for name in folders} == {name.lower() for name in known}
