"""Readers of labelled images in class folders."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.classification.folder_names import listed, match_names, usual_names
from hypvl.datasets.classification.prompts import imagenet_class_names
from hypvl.datasets.files import class_folders, images_below, require_folder
from hypvl.datasets.images import IMAGE_EXTENSIONS, Images, LabelledImages
from hypvl.errors import DataError, MissingDataError


@configurable("evaluate", "dataset")
class ImageFolderSet(LabelledImages):
    """One folder per class, images anywhere below it; links are followed.

    Classes are the folders in sorted order, images of a class in sorted order.

    Args:
        root: The folder of class folders.
        class_names: Names by folder, or in the folders' order; None = the folders' names, with ``_`` read as a space.
        prompts: The set's own prompts, templates or whole ones by class name, or None.

    Raises:
        MissingDataError: when ``root`` is not there, has no class folders, or they hold no images.
        DataError: when the names do not match the folders.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        class_names: Sequence[str] | Mapping[str, str] | None = None,
        prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.root = Path(root)
        require_folder(self.root, "a folder with one folder per class")
        folders = class_folders(self.root)
        if not folders:
            raise MissingDataError(f"{self.root}: holds no class folders; expected one folder per class.")
        by_class = [images_below(self.root / folder) for folder in folders]
        paths = [path for own in by_class for path in own]
        if not paths:
            raise MissingDataError(
                f"{self.root}: its {len(folders)} class folders hold no images; expected files that end in "
                f"{', '.join(IMAGE_EXTENSIONS)}."
            )
        super().__init__(
            Images.from_files(paths),
            [label for label, own in enumerate(by_class) for _ in own],
            classes=(
                [name.replace("_", " ") for name in folders]
                if class_names is None
                else match_names(folders, class_names, where=self.root)
            ),
            keys=[path.relative_to(self.root).as_posix() for path in paths],
            prompts=prompts,
            folders=folders,
        )


@configurable("evaluate", "dataset")
def imagenet(root: str | Path, *, split: str = "val") -> ImageFolderSet:
    """ImageNet-1k as class folders: ``root/{train,val}/n01440764/*.JPEG`` … ``n15075141``.

    The 1,000 folders are WordNet ids; their sorted order is the order of open_clip's class names.

    Raises:
        MissingDataError: when the split is not there.
        DataError: when the folders are not the 1,000 WordNet ids, listing differences.
    """
    from timm.data import ImageNetInfo

    folder = Path(root) / split
    require_folder(folder, "ImageNet with 1,000 folders of WordNet ids (n01440764 …)")
    names = class_folders(folder)
    known = list(ImageNetInfo("imagenet-1k").label_names())
    unknown, missing = sorted(set(names) - set(known)), sorted(set(known) - set(names))
    if unknown or missing:
        raise DataError(
            f"{folder}: has {len(names)} class folders, of which {listed(unknown)} not a class of ImageNet-1k, and "
            f"{listed(missing)} missing; expected exactly the 1,000 folders n01440764 … n15075141."
        )
    return ImageFolderSet(folder, class_names=dict(zip(known, imagenet_class_names(), strict=True)))


def known_folders(root: Path, *, set_name: str) -> ImageFolderSet:
    """Class folders of a set of sets.json, with the usual name of each class by what its folder is called.

    Raises as :class:`ImageFolderSet`, and DataError for a folder that is not a class of the set.
    """
    dataset = ImageFolderSet(root)
    names = usual_names(dataset.folders, set_name=set_name, where=root)
    dataset.classes = [spaced(name) for name in dataset.classes] if names is None else names
    return dataset


def spaced(name: str) -> str:
    """``"ApplyEyeMakeup"`` -> ``"Apply Eye Makeup"``; names with spaces stay."""
    return name if " " in name else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
