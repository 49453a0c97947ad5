"""The classification sets of I0T's data root: CIFAR-100 and Birdsnap."""

from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.catalog import classification_set
from hypvl.datasets.classification import ImageFolderSet
from hypvl.datasets.entries import check_name
from hypvl.datasets.prompts import set_templates
from hypvl.datasets.protocol import ClassificationSet

#: Names that :func:`i0t_classification_set` takes.
I0T_CLASSIFICATION_SETS: tuple[str, ...] = ("cifar100", "birdsnap")


@configurable("evaluate")
def i0t_classification_set(name: str, *, root: str | Path, download: bool = False) -> ClassificationSet:
    """A test set of I0T: ``root/zeroshot_datasets/{cifar-100-python, birdsnap/test/<class>/*}``.

    Its captions (GOLD files) are read by :func:`hypvl.datasets.retrieval.gold` and ``nocaps``.

    Args:
        name: One of :data:`I0T_CLASSIFICATION_SETS`.
        root: I0T's data root.
        download: Fetch CIFAR-100 when it is not there; Birdsnap has no source.

    Raises:
        ConfigError: for an unknown name.
        MissingDataError: when it is not there.
        DataError: when it cannot be read.
    """
    check_name(name, I0T_CLASSIFICATION_SETS, what="I0T set")
    folder = Path(root) / "zeroshot_datasets"
    if name == "cifar100":
        return classification_set("cifar100", root=folder, download=download)
    dataset = ImageFolderSet(folder / "birdsnap" / "test")
    dataset.prompts = set_templates("birdsnap")
    return dataset
