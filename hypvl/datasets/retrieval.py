"""Readers of images with captions: COCO, Flickr30k, NoCaps, I0T's GOLD files, and any JSON or table of them."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.errors import DataError, MissingDataError
from hypvl.datasets.captioned_table import captions_by_image, either, image_place, open_table
from hypvl.datasets.classification import read_json, require_folder
from hypvl.datasets.images import FileImages
from hypvl.datasets.protocol import ImageSource
from hypvl.io.coco import by_id
from hypvl.io.table_text import MAX_FIELD_LINES, Quoting

ImageIs: TypeAlias = Literal["path", "name"]

Domain: TypeAlias = Literal["in-domain", "near-domain", "out-domain"]


class CaptionedImages:
    """Images and their captions.

    Args:
        images: The gallery.
        captions: All captions.
        caption_image: For each caption the position of its image.
        keys: A name for each image.
        image_ids: Of each image, as a file of further positives names it; None = there are none.
        caption_ids: The same of each caption.

    Raises:
        DataError: when the lengths do not fit, or there are no captions.
    """

    def __init__(
        self,
        images: ImageSource,
        captions: Sequence[str],
        caption_image: Sequence[int],
        *,
        keys: Sequence[str],
        image_ids: Sequence[str] | None = None,
        caption_ids: Sequence[str] | None = None,
    ) -> None:
        if len(captions) != len(caption_image) or len(keys) != len(images):
            raise DataError(
                f"retrieval set: got {len(captions)} captions with {len(caption_image)} images of theirs and "
                f"{len(images)} images with {len(keys)} keys; expected the same numbers."
            )
        for name, ids, count in (("image", image_ids, len(images)), ("caption", caption_ids, len(captions))):
            if ids is not None and (len(ids) != count or len(set(ids)) != count):
                raise DataError(
                    f"retrieval set: has {len(set(ids))} different {name}_ids for {count} {name}s; expected one each."
                )
        if not captions:
            raise DataError("retrieval set: has no captions; expected at least one.")
        if not 0 <= min(caption_image) <= max(caption_image) < len(images):
            raise DataError(f"retrieval set: a caption's image is not among the {len(images)} images.")
        self.images = images
        self.captions = list(captions)
        self.caption_image = list(caption_image)
        self.keys = list(keys)
        self.image_ids = None if image_ids is None else list(image_ids)
        self.caption_ids = None if caption_ids is None else list(caption_ids)


@configurable("evaluate")
def coco(
    root: str | Path, *, split: str = "val2017", captions_per_image: int | None = None
) -> CaptionedImages:
    """COCO captions: ``root/annotations/captions_<split>.json`` and the images in ``root/<split>/``.

    Args:
        root: Folder of COCO.
        split: ``val2017`` (5,000 images) or another one with captions.
        captions_per_image: Keep the first so many of each image; None = all (5, of some images 6 or 7).
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
        captions_per_image: Keep the first so many of each image; None = all.
        max_characters: Cut captions there; None = not at all.

    Raises:
        ValueError: for another domain.
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

    Captions need not stand together, and need not have an ``id`` themselves (then there are no ``caption_ids``).

    Args:
        annotations: The file.
        images: Folder that ``file_name`` starts from.
        where: Keep the images whose entry has these values.
        captions_per_image: Keep the first so many of each image; None = all.
        max_characters: Cut captions there; None = not at all.
    """
    annotations, folder = Path(annotations), Path(images)
    content = read_json(annotations)
    require_folder(folder, f"the images of {annotations.name}")
    try:
        names = by_id(content["images"], lambda entry: str(entry["file_name"]))
        kept = {entry["id"] for entry in content["images"] if _agrees(entry, where)}
        rows = [(row["image_id"], str(row["caption"]), row.get("id")) for row in content["annotations"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{annotations}: lacks {error}; expected COCO's images (id, file_name) and annotations (image_id, caption)."
        ) from error
    except ValueError as error:
        raise DataError(f"{annotations}: has {error}; expected one image an id, so that captions keep theirs.") from error
    captions: dict[Any, list[tuple[str, Any]]] = {image: [] for image in names}
    for image, caption, key in rows:
        if image not in captions:
            raise DataError(
                f"{annotations}: a caption names image_id {image}, which is not among its images."
            )
        captions[image].append((_text(caption, max_characters), key))
    if not kept:
        raise DataError(f"{annotations}: has no image with {where}; expected at least one.")
    chosen = {image: texts[:captions_per_image] for image, texts in captions.items() if image in kept}
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
        root: Folder of COCO.
        split: ``test`` ("COCO 5K": 5,000 images of val2014), ``val``, ``train`` or ``restval``.
        captions_per_image: Keep the first so many of each image (the published test set has 5); None = all.
    """
    return _karpathy(Path(root) / "dataset_coco.json", Path(root), split, captions_per_image)


@configurable("evaluate")
def flickr30k(
    root: str | Path, *, split: str = "test", captions_per_image: int | None = None
) -> CaptionedImages:
    """Flickr30k in Karpathy's splits: ``root/dataset_flickr30k.json`` and ``root/flickr30k_images/``.

    Args:
        root: Folder of Flickr30k.
        split: ``test`` (1,000 images, 5 captions each), ``val`` or ``train``.
        captions_per_image: Keep the first so many of each image; None = all.
    """
    folder = Path(root) / "flickr30k_images"
    return _karpathy(Path(root) / "dataset_flickr30k.json", folder, split, captions_per_image)


def _karpathy(annotations: Path, folder: Path, split: str, captions_per_image: int | None) -> CaptionedImages:
    content = read_json(annotations)
    require_folder(folder, f"the images of {annotations.name}")
    try:
        entries = [entry for entry in content["images"] if entry["split"] == split]
        splits = sorted({str(entry["split"]) for entry in content["images"]})
        names = [str(Path(entry.get("filepath", ""), entry["filename"])) for entry in entries]
        sentences = [entry["sentences"][:captions_per_image] for entry in entries]
        texts = [[str(sentence["raw"]).strip() for sentence in own] for own in sentences]
        caption_ids = [sentence.get("sentid") for own in sentences for sentence in own]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{annotations}: lacks {error}; expected Karpathy's images (filename, split, sentences of raw)."
        ) from error
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
        path: The file.
        images: Folder of the images; of ``image_id`` only the file name counts.
        captions_per_image: Keep the first so many of each image (1 as published); None = all.
        max_characters: Cut captions there (330 as published for contexts of 77); None = not at all.
    """
    return json_list(
        path,
        images=images,
        image_column="image_id",
        caption_column="captions",
        image_is="name",
        captions_per_image=captions_per_image,
        max_characters=max_characters,
    )


@configurable("evaluate")
def table(
    path: str | Path,
    *,
    images_root: str | Path | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    separator: str | None = None,
    quoting: Quoting = "minimal",
    max_field_lines: int = MAX_FIELD_LINES,
    image_is: ImageIs = "path",
    where: Mapping[str, str] | None = None,
    captions_per_image: int | None = None,
    max_characters: int | None = None,
    images: str | Path | None = None,
    image_key: str | None = None,
    caption_key: str | None = None,
) -> CaptionedImages:
    """Any list of images with captions: a CSV or TSV with a header line, ``.jsonl``, or a JSON list of objects.

    The options are those of a training table (docs/data.md). In JSON the caption may be a list of captions; an image
    may have several rows, whose captions are its captions. Blank captions are left out, with a warning; an image
    without any is a distractor.

    Args:
        path: The file.
        images_root: Folder that paths start from, and may not leave; None = the folder of the file, and they may.
        image_column: Column, or key, of the image's path; None: the first usual one there is (``filepath``,
            ``image`` ...; in JSON ``image`` first).
        caption_column: Column, or key, of the caption; None: ``title``, ``caption``, ``captions`` or ``text`` (in JSON
            ``captions`` first).
        separator: Between columns; None: TAB where the header line has one, else comma, else semicolon.
        quoting: "minimal": fields may be quoted; "none": a quotation mark is a sign like any other.
        max_field_lines: Lines that a quoted field may take.
        image_is: What the image's value is: a path, or one of which only the file name counts.
        where: Keep the rows that have these values, such as ``{"split": "test"}``.
        captions_per_image: Keep the first so many of each image; None = all.
        max_characters: Cut captions there; None = not at all.
        images: Earlier name of ``images_root``.
        image_key: Earlier name of ``image_column``.
        caption_key: Earlier name of ``caption_column``.

    Raises:
        MissingDataError: when the file or all images are not there.
        DataError: naming the row that cannot be used.
        ValueError: for an option given by both its names.
    """
    one_of("quoting", quoting, Quoting)
    one_of("image_is", image_is, ImageIs)
    path = Path(path).expanduser()
    root = either("images_root", images_root, "images", images)
    if root is not None:
        require_folder(Path(root), f"the images of {path.name}")
    entries = captions_by_image(
        open_table(path, separator=separator, quoting=quoting, max_field_lines=max_field_lines),
        image_column=either("image_column", image_column, "image_key", image_key),
        caption_column=either("caption_column", caption_column, "caption_key", caption_key),
        where=where,
        file_name_only=image_is == "name",
        max_characters=max_characters,
    )
    return from_files(
        [
            (image_place(path, root, name), name, texts[:captions_per_image])
            for name, texts in entries.items()
        ],
        path,
    )


@configurable("evaluate")
def json_list(
    path: str | Path,
    *,
    images: str | Path,
    image_column: str | None = None,
    caption_column: str | None = None,
    image_is: ImageIs = "path",
    captions_per_image: int | None = None,
    max_characters: int | None = None,
    image_key: str | None = None,
    caption_key: str | None = None,
) -> CaptionedImages:
    """:func:`table` for a JSON list such as ``coco_karpathy_test.json``: ``{"image": "val2014/x.jpg", "caption": [...]}``.

    Args:
        path: The file.
        images: Folder of the images.
        image_column: As :func:`table`, and so are the others.
        caption_column: Key of the caption or captions.
        image_is: A path below ``images``, or one of which only the file name counts.
        captions_per_image: Keep the first so many of each image; None = all.
        max_characters: Cut captions there; None = not at all.
        image_key: Earlier name of ``image_column``.
        caption_key: Earlier name of ``caption_column``.
    """
    one_of("image_is", image_is, ImageIs)
    return table(
        path,
        images_root=images,
        image_column=image_column,
        caption_column=caption_column,
        image_is=image_is,
        captions_per_image=captions_per_image,
        max_characters=max_characters,
        image_key=image_key,
        caption_key=caption_key,
    )


@configurable("evaluate")
def jsonl(
    path: str | Path,
    *,
    images_root: str | Path | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    where: Mapping[str, str] | None = None,
    image_key: str | None = None,
    caption_key: str | None = None,
) -> CaptionedImages:
    """:func:`table` for one JSON object a line.

    ``{"image": "a/1.jpg", "caption": "…"}`` or ``{"image": "a/1.jpg", "captions": ["…", "…"]}``. A line with an empty
    list adds an image without captions, a distractor.

    Args:
        path: The file.
        images_root: As :func:`table`, and so are the others.
        image_column: Key of the image's path.
        caption_column: Key of the caption or captions; None = ``captions``, else ``caption``.
        where: Keep the lines that have these values, such as ``{"split": "test"}``.
        image_key: Earlier name of ``image_column``.
        caption_key: Earlier name of ``caption_column``.
    """
    return table(
        path,
        images_root=images_root,
        image_column=image_column,
        caption_column=caption_column,
        where=where,
        image_key=image_key,
        caption_key=caption_key,
    )


def from_files(
    entries: Sequence[tuple[Path, str, Sequence[str]]],
    source: Path,
    *,
    image_ids: Iterable[Hashable] | None = None,
    caption_ids: Iterable[Hashable] | None = None,
) -> CaptionedImages:
    """A set from (path, key, captions) of each image.

    Args:
        entries: The images.
        source: What to name in messages.
        image_ids: Of each image; where one is None or stands twice, the set has none.
        caption_ids: Of each caption, the same.

    Raises:
        DataError: without captions.
        MissingDataError: when none of the images is there.
    """
    if not any(texts for _, _, texts in entries):
        raise DataError(f"{source}: has no captions; expected at least one.")
    if not any(path.is_file() for path, _, _ in entries):
        raise MissingDataError(
            f"{source}: none of its {len(entries)} images is there, such as {entries[0][0]}; put them there."
        )
    return CaptionedImages(
        FileImages([path for path, _, _ in entries]),
        [text for _, _, texts in entries for text in texts],
        [image for image, (_, _, texts) in enumerate(entries) for _ in texts],
        keys=[key for _, key, _ in entries],
        image_ids=_ids(image_ids),
        caption_ids=_ids(caption_ids),
    )


def _ids(given: Iterable[Hashable] | None) -> list[str] | None:
    ids = None if given is None else list(given)
    if ids is None or None in ids or len(set(ids)) < len(ids):
        return None
    return [str(key) for key in ids]


def _agrees(entry: Mapping[str, Any], where: Mapping[str, str] | None) -> bool:
    return where is None or all(entry.get(key) == value for key, value in where.items())


def _text(caption: str, max_characters: int | None) -> str:
    return caption.strip()[:max_characters]
