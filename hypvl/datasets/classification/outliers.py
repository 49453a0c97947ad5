"""Images of some classes and images of none of them: ImageNet-O."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.classification.imagenet_variants import imagenet_folders
from hypvl.datasets.classification.prompts import imagenet_templates
from hypvl.datasets.files import images_below, require_folder
from hypvl.datasets.images import Images, LabelledImages, joined
from hypvl.datasets.protocol import ImageSource
from hypvl.errors import MissingDataError


@dataclass(frozen=True)
class OutlierSet:
    """Images of some classes, and images of none of them."""

    images: ImageSource  # those of the classes, then the outliers
    outlier: Sequence[bool]  # of each image
    classes: Sequence[str]  # as prompts say them
    keys: Sequence[str]  # a name for each image
    prompts: Sequence[str]  # templates with ``{}``


@configurable("evaluate")
def imagenet_o(root: str | Path = "./datasets/eval", *, imagenet: str | Path) -> OutlierSet:
    """ImageNet-O's images as outliers, and ImageNet's validation images of the 200 classes its folders name.

    Args:
        root: Folder that holds ``imagenet-o/<WordNet id>/``.
        imagenet: ImageNet's validation images, ``<WordNet id>/*.JPEG``.

    Source: Hendrycks et al. 2021 (arXiv 1907.07174), section 3.
    """
    outside = imagenet_folders(Path(root) / "imagenet-o")
    inside = Path(imagenet)
    require_folder(inside, "ImageNet's validation images in folders of WordNet ids")
    paths = {name: images_below(inside / name) for name in outside.folders if (inside / name).is_dir()}
    missing = [name for name in outside.folders if not paths.get(name)]
    if missing:
        raise MissingDataError(
            f"{inside}: has no images of {', '.join(missing[:5])} ({len(missing)} of ImageNet-O's "
            f"{len(outside.folders)} classes); put ImageNet's validation images there."
        )
    usual = LabelledImages(
        Images.from_files([path for own in paths.values() for path in own]),
        [label for label, own in enumerate(paths.values()) for _ in own],
        classes=outside.classes,
        keys=[path.relative_to(inside).as_posix() for own in paths.values() for path in own],
    )
    both = joined(usual, outside)
    return OutlierSet(
        both.images,
        [False] * len(usual) + [True] * len(outside),
        outside.classes,
        both.keys,
        imagenet_templates(),
    )
