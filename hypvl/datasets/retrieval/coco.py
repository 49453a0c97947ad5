"""Readers of images with captions: COCO, Flickr30k, NoCaps and I0T's GOLD files.

In all of them ``captions_per_image`` keeps the first so many of each image (None = all), and ``max_characters`` cuts
captions there (None = not at all). They raise MissingDataError when files, or all images, are not there, and DataError
for files of another layout.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.files import image_place, read_json, require_folder
from hypvl.datasets.retrieval.captioned import CaptionedImages, from_files
from hypvl.datasets.retrieval.table import table
from hypvl.errors import DataError
from hypvl.io.json_text import by_id, expecting

Domain: TypeAlias = Literal["in-domain", "near-domain", "out-domain"]


@configurable("evaluate")
def coco(
    root: str | Path, *, split: str = "val2017", captions_per_image: int | None = None
) -> CaptionedImages:
    """COCO captions: ``root/annotations/captions_<split>.json`` and the images in ``root/<split>/``.

    Args:
        split: ``val2017`` (5,000 images) or another one with captions.
        captions_per_image: Of 5, of some images 6 or 7.
    """
    annotations = Path(root) / "annotations" / f"captions_{split}.json"
    return coco_format(annotations, images=Path(root) / split, captions_per_image=captions_per_image)


@configurable("evaluate")
def nocaps(
    annotations: str | Path,
    *,
    images: str | Path,
    domain: Domain | None = None,
    captions_per_image: int | None = None,
    max_characters: int | None = None,
) -> CaptionedImages:
    """NoCaps: ``nocaps_val_4500_captions.json``, or I0T's ``NoCaps_GOLD.json``, which has the same layout.

    Args:
        annotations: The file: COCO's layout, 10 captions per image, each image with its ``domain``.
        images: Folder of the images; when it has a folder ``val``, that one.
        domain: Keep the images of one domain; None = all.
    """
    one_of("domain", domain, Domain | None)
    folder = Path(images)
    return coco_format(
        annotations,
        images=folder / "val" if (folder / "val").is_dir() else folder,
        where=None if domain is None else {"domain": domain},
        captions_per_image=captions_per_image,
        max_characters=max_characters,
    )


@configurable("evaluate")
def coco_format(
    annotations: str | Path,
    *,
    images: str | Path,
    where: Mapping[str, str] | None = None,
    captions_per_image: int | None = None,
    max_characters: int | None = None,
) -> CaptionedImages:
    """Any file of COCO's layout: ``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}``.

    The captions of an image may stand anywhere in the list. Without an ``id`` of each caption there are no
    ``caption_ids``.

    Args:
        images: Folder that ``file_name`` starts from.
        where: Keep the images whose entry has these values.
    """
    annotations, folder = Path(annotations), Path(images)
    content = read_json(annotations)
    require_folder(folder, f"the images of {annotations.name}")
    wanted = (where or {}).items()
    with expecting(
        annotations, "COCO's images (id, file_name), one an id, and annotations (image_id, caption)"
    ):
        names = by_id(content["images"], lambda entry: str(entry["file_name"]))
        selected = {entry["id"] for entry in content["images"] if wanted <= entry.items()}
        rows = [(row["image_id"], str(row["caption"]), row.get("id")) for row in content["annotations"]]
    captions: dict[Any, list[tuple[str, Any]]] = {image: [] for image in names}
    for image, caption, key in rows:
        if image not in captions:
            raise DataError(
                f"{annotations}: a caption names image_id {image}, which is not among its images."
            )
        captions[image].append((caption.strip()[:max_characters], key))
    if not selected:
        raise DataError(f"{annotations}: has no image with {where}; expected at least one.")
    chosen = {image: texts[:captions_per_image] for image, texts in captions.items() if image in selected}
    return from_files(
        [
            (image_place(annotations, folder, names[image]), names[image], [text for text, _ in texts])
            for image, texts in chosen.items()
        ],
        annotations,
        image_ids=list(chosen),
        caption_ids=[key for texts in chosen.values() for _, key in texts],
    )


@configurable("evaluate")
def coco_karpathy(
    root: str | Path, *, split: str = "test", captions_per_image: int | None = None
) -> CaptionedImages:
    """COCO in Karpathy's splits: ``root/dataset_coco.json`` and the images in ``root/val2014/`` (``train2014/``).

    Args:
        split: ``test`` ("COCO 5K": 5,000 images of val2014), ``val``, ``train`` or ``restval``.
        captions_per_image: Of some; the published test set has 5.
    """
    return _karpathy(Path(root) / "dataset_coco.json", Path(root), split, captions_per_image)


@configurable("evaluate")
def flickr30k(
    root: str | Path, *, split: str = "test", captions_per_image: int | None = None
) -> CaptionedImages:
    """Flickr30k in Karpathy's splits: ``root/dataset_flickr30k.json`` and ``root/flickr30k_images/``.

    Args:
        split: ``test`` (1,000 images, 5 captions each), ``val`` or ``train``.
    """
    folder = Path(root) / "flickr30k_images"
    return _karpathy(Path(root) / "dataset_flickr30k.json", folder, split, captions_per_image)


def _karpathy(annotations: Path, folder: Path, split: str, captions_per_image: int | None) -> CaptionedImages:
    content = read_json(annotations)
    require_folder(folder, f"the images of {annotations.name}")
    with expecting(annotations, "Karpathy's images (filename, split, sentences of raw)"):
        entries = [entry for entry in content["images"] if entry["split"] == split]
        splits = sorted({str(entry["split"]) for entry in content["images"]})
        names = [str(Path(entry.get("filepath", ""), entry["filename"])) for entry in entries]
        sentences = [entry["sentences"][:captions_per_image] for entry in entries]
        texts = [[str(sentence["raw"]).strip() for sentence in own] for own in sentences]
        caption_ids = [sentence.get("sentid") for own in sentences for sentence in own]
    if not entries:
        raise DataError(
            f"{annotations}: has no image with split {split!r}; expected one of {', '.join(splits)}."
        )
    return from_files(
        [(image_place(annotations, folder, name), name, own) for name, own in zip(names, texts, strict=True)],
        annotations,
        image_ids=[entry.get("cocoid") for entry in entries],
        caption_ids=caption_ids,
    )


@configurable("evaluate")
def gold(
    path: str | Path,
    *,
    images: str | Path,
    captions_per_image: int | None = None,
    max_characters: int | None = None,
) -> CaptionedImages:
    """I0T's ``COCO_GOLD.json``, ``Flickr_GOLD.json``: a list of ``{"image_id": ".../<file name>", "captions": [...]}``.

    Args:
        images: Folder of the images; of ``image_id`` only the file name counts.
        captions_per_image: 1 as published.
        max_characters: 330 as published for contexts of 77.
    """
    return table(
        path,
        images_root=images,
        image_column="image_id",
        caption_column="captions",
        image_is="name",
        captions_per_image=captions_per_image,
        max_characters=max_characters,
    )
