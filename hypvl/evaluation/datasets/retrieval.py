"""Readers of pictures with captions: COCO, Flickr30k, NoCaps, I0T's GOLD files, and any JSON or table of them."""

import csv
import io
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hypvl.errors import DataError
from hypvl.evaluation.datasets.classification import read_json, read_text, require_folder
from hypvl.evaluation.datasets.images import FileImages
from hypvl.evaluation.protocol import ImageSource, MissingDataError


class CaptionedImages:
    """Pictures and their captions.

    Args:
        images: The gallery.
        captions: All captions.
        caption_image: For each caption the position of its picture.
        keys: A name for each picture.
        image_ids: Of each picture, as a file of further positives names it; None = there are none.
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
                f"retrieval set: got {len(captions)} captions with {len(caption_image)} pictures of theirs and "
                f"{len(images)} pictures with {len(keys)} keys; expected the same numbers."
            )
        for name, ids, count in (("image", image_ids, len(images)), ("caption", caption_ids, len(captions))):
            if ids is not None and (len(ids) != count or len(set(ids)) != count):
                raise DataError(
                    f"retrieval set: has {len(set(ids))} different {name}_ids for {count} {name}s; expected one each."
                )
        if not captions:
            raise DataError("retrieval set: has no captions; expected at least one.")
        if not 0 <= min(caption_image) <= max(caption_image) < len(images):
            raise DataError(f"retrieval set: a caption's picture is not among the {len(images)} pictures.")
        self.images = images
        self.captions = list(captions)
        self.caption_image = list(caption_image)
        self.keys = list(keys)
        self.image_ids = None if image_ids is None else list(image_ids)
        self.caption_ids = None if caption_ids is None else list(caption_ids)


def coco(
    root: str | Path, *, split: str = "val2017", captions_per_image: int | None = None
) -> CaptionedImages:
    """COCO captions: ``root/annotations/captions_<split>.json`` and the pictures in ``root/<split>/``.

    Args:
        root: Folder of COCO.
        split: ``val2017`` (5,000 pictures) or another one with captions.
        captions_per_image: Keep the first so many of each picture; None = all (5, of some pictures 6 or 7).
    """
    annotations = Path(root) / "annotations" / f"captions_{split}.json"
    return coco_format(annotations, images=Path(root) / split, captions_per_image=captions_per_image)


def nocaps(
    annotations: str | Path,
    *,
    images: str | Path,
    domain: Literal["in-domain", "near-domain", "out-domain"] | None = None,
    captions_per_image: int | None = None,
    max_characters: int | None = None,
) -> CaptionedImages:
    """NoCaps: ``nocaps_val_4500_captions.json``, or I0T's ``NoCaps_GOLD.json``, which has the same layout.

    Args:
        annotations: The file: COCO's layout, 10 captions per picture, each picture with its ``domain``.
        images: Folder of the pictures; when it has a folder ``val``, that one.
        domain: Keep the pictures of one domain; None = all.
        captions_per_image: Keep the first so many of each picture; None = all.
        max_characters: Cut captions there; None = not at all.
    """
    folder = Path(images)
    return coco_format(
        annotations,
        images=folder / "val" if (folder / "val").is_dir() else folder,
        where=None if domain is None else {"domain": domain},
        captions_per_image=captions_per_image,
        max_characters=max_characters,
    )


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
        where: Keep the pictures whose entry has these values.
        captions_per_image: Keep the first so many of each picture; None = all.
        max_characters: Cut captions there; None = not at all.
    """
    annotations, folder = Path(annotations), Path(images)
    content = read_json(annotations)
    require_folder(folder, f"the pictures of {annotations.name}")
    try:
        names = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        kept = {entry["id"] for entry in content["images"] if _agrees(entry, where)}
        rows = [(row["image_id"], str(row["caption"]), row.get("id")) for row in content["annotations"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{annotations}: lacks {error}; expected COCO's images (id, file_name) and annotations (image_id, caption)."
        ) from error
    captions: dict[Any, list[tuple[str, Any]]] = {image: [] for image in names}
    for image, caption, key in rows:
        if image not in captions:
            raise DataError(
                f"{annotations}: a caption names image_id {image}, which is not among its images."
            )
        captions[image].append((_text(caption, max_characters), key))
    if not kept:
        raise DataError(f"{annotations}: has no picture with {where}; expected at least one.")
    chosen = {image: texts[:captions_per_image] for image, texts in captions.items() if image in kept}
    return from_files(
        [
            (folder / names[image], names[image], [text for text, _ in texts])
            for image, texts in chosen.items()
        ],
        annotations,
        image_ids=list(chosen),
        caption_ids=[key for texts in chosen.values() for _, key in texts],
    )


def coco_karpathy(
    root: str | Path, *, split: str = "test", captions_per_image: int | None = None
) -> CaptionedImages:
    """COCO in Karpathy's splits: ``root/dataset_coco.json`` and the pictures in ``root/val2014/`` (``train2014/``).

    Args:
        root: Folder of COCO.
        split: ``test`` ("COCO 5K": 5,000 pictures of val2014), ``val``, ``train`` or ``restval``.
        captions_per_image: Keep the first so many of each picture (the published test set has 5); None = all.
    """
    return _karpathy(Path(root) / "dataset_coco.json", Path(root), split, captions_per_image)


def flickr30k(
    root: str | Path, *, split: str = "test", captions_per_image: int | None = None
) -> CaptionedImages:
    """Flickr30k in Karpathy's splits: ``root/dataset_flickr30k.json`` and ``root/flickr30k_images/``.

    Args:
        root: Folder of Flickr30k.
        split: ``test`` (1,000 pictures, 5 captions each), ``val`` or ``train``.
        captions_per_image: Keep the first so many of each picture; None = all.
    """
    folder = Path(root) / "flickr30k_images"
    return _karpathy(Path(root) / "dataset_flickr30k.json", folder, split, captions_per_image)


def _karpathy(annotations: Path, folder: Path, split: str, captions_per_image: int | None) -> CaptionedImages:
    content = read_json(annotations)
    require_folder(folder, f"the pictures of {annotations.name}")
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
            f"{annotations}: has no picture with split {split!r}; expected one of {', '.join(splits)}."
        )
    return from_files(
        [(folder / name, name, own) for name, own in zip(names, texts, strict=True)],
        annotations,
        image_ids=[entry.get("cocoid") for entry in entries],
        caption_ids=caption_ids,
    )


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
        images: Folder of the pictures; of ``image_id`` only the file name counts.
        captions_per_image: Keep the first so many of each picture (1 as published); None = all.
        max_characters: Cut captions there (330 as published for contexts of 77); None = not at all.
    """
    return json_list(
        path,
        images=images,
        image_key="image_id",
        caption_key="captions",
        image_is="name",
        captions_per_image=captions_per_image,
        max_characters=max_characters,
    )


def json_list(
    path: str | Path,
    *,
    images: str | Path,
    image_key: str = "image",
    caption_key: str = "caption",
    image_is: Literal["path", "name"] = "path",
    captions_per_image: int | None = None,
    max_characters: int | None = None,
) -> CaptionedImages:
    """A JSON list of pictures, such as ``coco_karpathy_test.json``: ``{"image": "val2014/x.jpg", "caption": [...]}``.

    Args:
        path: The file.
        images: Folder of the pictures.
        image_key: Key of the picture.
        caption_key: Key of the caption or the captions.
        image_is: What the picture's value is: a path below ``images``, or one of which only the file name counts.
        captions_per_image: Keep the first so many of each picture; None = all.
        max_characters: Cut captions there; None = not at all.
    """
    path, folder = Path(path), Path(images)
    content = read_json(path)
    require_folder(folder, f"the pictures of {path.name}")
    if not isinstance(content, list):
        raise DataError(f"{path}: holds {type(content).__name__}; expected a list of pictures with captions.")
    entries: dict[str, list[str]] = {}
    for number, entry in enumerate(content):
        name, texts = _entry(entry, f"{path}, entry {number}", image_key, caption_key)
        name = Path(name).name if image_is == "name" else name
        entries.setdefault(name, []).extend(_text(text, max_characters) for text in texts)
    return from_files(
        [(folder / name, name, texts[:captions_per_image]) for name, texts in entries.items()], path
    )


def table(
    path: str | Path,
    *,
    images: str | Path | None = None,
    separator: str = "\t",
    image_key: str = "filepath",
    caption_key: str = "title",
) -> CaptionedImages:
    """A CSV or TSV with a header, one caption a line; lines of the same picture are its captions.

    Args:
        path: The file.
        images: Folder that pictures are named from; None = the folder of the file.
        separator: Between columns.
        image_key: Column of the picture's path.
        caption_key: Column of the caption.
    """
    path = Path(path)
    root = path.parent if images is None else Path(images)
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=separator)
    columns = rows.fieldnames or ()
    if lost := [key for key in (image_key, caption_key) if key not in columns]:
        raise DataError(
            f"{path}: has no column {lost[0]!r} among {', '.join(columns)[:80]!r}; name image_key, caption_key "
            "and separator."
        )
    entries: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=2):
        name, texts = _entry(row, f"{path}, row {number}", image_key, caption_key)
        entries.setdefault(name, []).extend(texts)
    return from_files([(root / name, name, texts) for name, texts in entries.items()], path)


def jsonl(
    path: str | Path,
    *,
    images_root: str | Path | None = None,
    image_key: str = "image",
    caption_key: str | None = None,
    where: Mapping[str, str] | None = None,
) -> CaptionedImages:
    """Any list of pictures with captions: one JSON object a line.

    ``{"image": "a/1.jpg", "caption": "…"}`` or ``{"image": "a/1.jpg", "captions": ["…", "…"]}``; a picture may
    have several lines. A line with an empty list adds a picture without captions, a distractor.

    Args:
        path: The file.
        images_root: Folder that pictures are named from; None = the folder of the file.
        image_key: Key of the picture's path.
        caption_key: Key of the caption or captions; None = ``captions``, else ``caption``.
        where: Keep the lines that have these values, such as ``{"split": "test"}``.

    Raises:
        MissingDataError: when the file is not there.
        DataError: naming the line that cannot be used.
    """
    path = Path(path)
    root = path.parent if images_root is None else Path(images_root)
    entries: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: is not valid JSON ({error}).") from error
        name, texts = _entry(entry, f"{path}, line {number}", image_key, caption_key)
        if _agrees(entry, where):
            entries.setdefault(name, []).extend(texts)
    return from_files([(root / name, name, texts) for name, texts in entries.items()], path)


def from_files(
    entries: Sequence[tuple[Path, str, Sequence[str]]],
    source: Path,
    *,
    image_ids: Iterable[Hashable] | None = None,
    caption_ids: Iterable[Hashable] | None = None,
) -> CaptionedImages:
    """A set from (path, key, captions) of each picture.

    Args:
        entries: The pictures.
        source: What to name in messages.
        image_ids: Of each picture; where one is None or stands twice, the set has none.
        caption_ids: Of each caption, the same.

    Raises:
        DataError: without captions.
        MissingDataError: when none of the pictures is there.
    """
    if not any(texts for _, _, texts in entries):
        raise DataError(f"{source}: has no captions; expected at least one.")
    if not any(path.is_file() for path, _, _ in entries):
        raise MissingDataError(
            f"{source}: none of its {len(entries)} pictures is there, such as {entries[0][0]}; put them there."
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


def _entry(entry: Any, where: str, image_key: str, caption_key: str | None) -> tuple[str, list[str]]:
    """Picture and captions of an object. Raises DataError naming the place."""
    given: Any = None
    if isinstance(entry, Mapping):
        given = entry.get("captions", entry.get("caption")) if caption_key is None else entry.get(caption_key)
    name = entry.get(image_key) if isinstance(entry, Mapping) else None
    texts = [given] if isinstance(given, str) else given
    if not isinstance(name, str) or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        got = json.dumps(entry, ensure_ascii=False, default=str)
        raise DataError(
            f'{where}: expected {{"{image_key}": path, "{caption_key or "caption"}": text or list of texts}}; '
            f"got {got[:80]}"
        )
    return name, texts
