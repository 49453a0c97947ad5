"""Readers of ImageNet's variants for robustness: V2, -A, -R, -Sketch and ObjectNet, from the hub or their own archives.

They raise MissingDataError when files are not there, and DataError for folders that are no class of the set.
"""

from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.classification.folder_names import listed
from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.classification.hub_sets import hub_set
from hypvl.datasets.classification.prompts import imagenet_class_names, imagenet_templates
from hypvl.datasets.classification.webdataset import is_url
from hypvl.datasets.files import class_folders, images_below, read_json, require_folder
from hypvl.datasets.images import Images, LabelledImages
from hypvl.datasets.protocol import ImageSource
from hypvl.errors import DataError, MissingDataError

Variant: TypeAlias = Literal["imagenetv2", "imagenet-a", "imagenet-r", "imagenet_sketch"]

#: Variant -> where its archive unpacks to, below the root.
FOLDERS: dict[Variant, tuple[str, ...]] = {
    "imagenetv2": ("imagenetv2-matched-frequency-format-val", "imagenetv2"),
    "imagenet-a": ("imagenet-a",),
    "imagenet-r": ("imagenet-r",),
    "imagenet_sketch": ("imagenet_sketch", "sketch/val", "sketch"),
}
_OBJECTNET = ("objectnet-1.0", "objectnet")


@configurable("evaluate")
def imagenet_variant(
    name: Variant, *, root: str | Path = "./datasets/eval", download: bool = False
) -> LabelledImages:
    """ImageNet-V2 (matched frequency), -A, -R or -Sketch: the WebDataset layout, else the archive's class folders.

    Class folders are WordNet ids, a part of ImageNet's 1,000 (ImageNet-A and -R have 200 of them), or numbers of
    ImageNet's classes from 0 (ImageNet-V2). Only the classes that have a folder are candidates. Names and the 80
    prompts are open_clip's; in the WebDataset layout the set's own.

    Args:
        root: Folder of the sets, or the http(s) address of one with sets in the WebDataset layout.
        download: Fetch the WebDataset layout where neither is there.

    Source: Recht et al. 2019 (V2, arXiv 1902.10811); Hendrycks et al. 2021 (A, arXiv 1907.07174; R, 2006.16241); Wang
        et al. 2019 (Sketch, 1905.13549).
    """
    one_of("name", name, Variant)
    if not is_url(root) and not (Path(root) / name / "classnames.txt").is_file():
        for part in FOLDERS[name]:
            folder = Path(root) / part
            if folder.is_dir() and _is_class(*class_folders(folder)):
                return imagenet_folders(folder)
    return hub_set(name, root=root, download=download)


def imagenet_folders(root: Path) -> ImageFolderSet:
    """Class folders of some ImageNet classes: WordNet ids, or numbers of classes from 0.

    Raises:
        MissingDataError: when there are none.
        DataError: listing folders that are no class.
    """
    require_folder(root, "class folders of WordNet ids (n01440764 ...)")
    folders = class_folders(root)
    names = _names()
    unknown = [folder for folder in folders if folder not in names]
    if unknown:
        raise DataError(
            f"{root}: {listed(unknown)} not a class of ImageNet-1k; expected WordNet ids (n01440764 ...) or 0 ... 999."
        )
    return ImageFolderSet(
        root, class_names={folder: names[folder] for folder in folders}, prompts=imagenet_templates()
    )


@cache
def _names() -> dict[str, str]:
    """Class folder -> name, by WordNet id and by number."""
    from timm.data import ImageNetInfo

    names = imagenet_class_names()
    return dict(zip(ImageNetInfo("imagenet-1k").label_names(), names, strict=True)) | {
        str(i): name for i, name in enumerate(names)
    }


def _is_class(*folders: str) -> bool:
    """Whether there are class folders of ImageNet, rather than those of a split or of an archive."""
    return bool(folders) and any(folder in _names() for folder in folders)


@configurable("evaluate")
def objectnet(root: str | Path = "./datasets/eval", *, download: bool = False) -> LabelledImages:
    """ObjectNet, its 113 classes that ImageNet has: the WebDataset layout, else ``objectnet-1.0/{images,mappings}``.

    ``mappings/folder_to_objectnet_label.json`` names the class of each folder of ``images``, and
    ``mappings/objectnet_to_imagenet_1k.json`` has the classes that overlap with ImageNet; images of others are left
    out. The red border of one pixel is cut off. The prompts are ImageNet's 80; in the WebDataset layout the set's own.

    Source: Barbu et al. 2019, ObjectNet. Differs: the candidates are the 113 classes by ObjectNet's names, as
        CLIP_benchmark has them, not ImageNet's 1,000 mapped to them.
    """
    place = Path(root)
    folder = next((place / part for part in _OBJECTNET if (place / part / "images").is_dir()), None)
    if is_url(root) or folder is None:
        return hub_set("objectnet", root=root, download=download)
    label_of = _texts(folder / "mappings" / "folder_to_objectnet_label.json")
    overlap = _texts(folder / "mappings" / "objectnet_to_imagenet_1k.json")
    classes = sorted(overlap)
    paths, labels = [], []
    for name in class_folders(folder / "images"):
        label = label_of.get(name)
        if label is None:
            raise DataError(
                f"{folder / 'images'}: {name} is not in folder_to_objectnet_label.json; expected the published folders."
            )
        if label in overlap:
            own = images_below(folder / "images" / name)
            paths += own
            labels += [classes.index(label)] * len(own)
    if not paths:
        raise MissingDataError(
            f"{folder / 'images'}: holds no images of the {len(classes)} classes that ImageNet has; unpack the archive "
            "(objectnet.dev) there."
        )
    return LabelledImages(
        _WithoutBorder(Images.from_files(paths)),
        labels,
        classes=[name.lower() for name in classes],
        keys=[path.relative_to(folder / "images").as_posix() for path in paths],
        prompts=imagenet_templates(),
    )


def _texts(path: Path) -> dict[str, str]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise DataError(f"{path}: expected an object of texts; got {str(content)[:80]}")
    return content


class _WithoutBorder:
    """Images without their outermost pixels; they have no ids, because their files show more."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Tensor:
        image = self._source[index]
        return image[:, 1:-1, 1:-1] if min(image.shape[1:]) > 2 else image
