"""Readers of pictures with captions: COCO, Flickr30k, and any JSON-lines file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    ) -> None:
        if len(captions) != len(caption_image) or len(keys) != len(images):
            raise DataError(
                f"retrieval set: got {len(captions)} captions with {len(caption_image)} pictures of theirs and "
                f"{len(images)} pictures with {len(keys)} keys; expected the same numbers."
            )
        if not captions:
            raise DataError("retrieval set: has no captions; expected at least one.")
        if not 0 <= min(caption_image) <= max(caption_image) < len(images):
            raise DataError(f"retrieval set: a caption's picture is not among the {len(images)} pictures.")
        self.images = images
        self.captions = list(captions)
        self.caption_image = list(caption_image)
        self.keys = list(keys)


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
    folder = Path(root) / split
    content = read_json(annotations)
    require_folder(folder, f"the pictures of COCO {split}")
    try:
        names = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        pairs = [(entry["image_id"], str(entry["caption"])) for entry in content["annotations"]]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{annotations}: lacks {error}; expected COCO's images (id, file_name) and annotations (image_id, caption)."
        ) from error
    captions: dict[Any, list[str]] = {image: [] for image in names}
    for image, caption in pairs:
        if image not in captions:
            raise DataError(
                f"{annotations}: a caption names image_id {image}, which is not among its images."
            )
        captions[image].append(caption.strip())
    return _from_files(
        [
            (folder / names[image], names[image], texts[:captions_per_image])
            for image, texts in captions.items()
        ],
        annotations,
    )


def flickr30k(
    root: str | Path, *, split: str = "test", captions_per_image: int | None = None
) -> CaptionedImages:
    """Flickr30k in Karpathy's splits: ``root/dataset_flickr30k.json`` and ``root/flickr30k_images/``.

    Args:
        root: Folder of Flickr30k.
        split: ``test`` (1,000 pictures, 5 captions each), ``val`` or ``train``.
        captions_per_image: Keep the first so many of each picture; None = all.
    """
    annotations = Path(root) / "dataset_flickr30k.json"
    folder = Path(root) / "flickr30k_images"
    content = read_json(annotations)
    require_folder(folder, "the pictures of Flickr30k")
    try:
        entries = [
            (str(entry["filename"]), [str(sentence["raw"]).strip() for sentence in entry["sentences"]])
            for entry in content["images"]
            if entry["split"] == split
        ]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{annotations}: lacks {error}; expected Karpathy's images (filename, split, sentences of raw)."
        ) from error
    if not entries:
        raise DataError(f"{annotations}: has no picture with split {split!r}; expected train, val or test.")
    return _from_files(
        [(folder / name, name, texts[:captions_per_image]) for name, texts in entries], annotations
    )


def jsonl(
    path: str | Path,
    *,
    images_root: str | Path | None = None,
    image_key: str = "image",
    caption_key: str | None = None,
) -> CaptionedImages:
    """Any list of pictures with captions: one JSON object a line.

    ``{"image": "a/1.jpg", "caption": "…"}`` or ``{"image": "a/1.jpg", "captions": ["…", "…"]}``; a picture may
    have several lines. A line with an empty list adds a picture without captions, a distractor.

    Args:
        path: The file.
        images_root: Folder that pictures are named from; None = the folder of the file.
        image_key: Key of the picture's path.
        caption_key: Key of the caption or captions; None = ``captions``, else ``caption``.

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
        name = entry.get(image_key) if isinstance(entry, dict) else None
        given = _captions_of(entry, caption_key) if isinstance(entry, dict) else None
        texts = [given] if isinstance(given, str) else given
        if (
            not isinstance(name, str)
            or not isinstance(texts, list)
            or not all(isinstance(t, str) for t in texts)
        ):
            raise DataError(
                f'{path}, line {number}: expected {{"{image_key}": path, '
                f'"{caption_key or "caption"}": text or list of texts}}; got {line.strip()[:80]}'
            )
        entries.setdefault(name, []).extend(texts)
    return _from_files([(root / name, name, texts) for name, texts in entries.items()], path)


def _captions_of(entry: dict[str, Any], key: str | None) -> Any:
    return entry.get("captions", entry.get("caption")) if key is None else entry.get(key)


def _from_files(entries: Sequence[tuple[Path, str, Sequence[str]]], source: Path) -> CaptionedImages:
    """From (path, key, captions) of each picture."""
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
    )
