"""Readers of images with long captions: ShareGPT4V's validation entries, and folders of text files.

They raise MissingDataError when files, or all images, are not there, and DataError for files of another layout.
"""

from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.data.share_gpt4v import short_caption
from hypvl.datasets.files import image_place, read_text, require_files, require_folder
from hypvl.datasets.images import ImagesByStem
from hypvl.datasets.retrieval.captioned import CaptionedImages, from_files
from hypvl.errors import DataError, MissingDataError
from hypvl.io.files import open_regular
from hypvl.io.json_text import JsonList, expecting

Caption: TypeAlias = Literal["long", "short"]

SHARE_GPT4V = "share-captioner_coco_lcs_sam_1246k_1107.json"


@configurable("evaluate")
def share_gpt4v(
    root: str | Path,
    *,
    annotations: str = SHARE_GPT4V,
    entries: int = 1000,
    subset: str | None = None,
    caption: Caption = "long",
) -> CaptionedImages:
    """The first entries of ShareGPT4V's list, which are not trained on: ``root/<annotations>``, ``root/data/<image>``.

    An entry is ``{"image": "coco/train2017/x.jpg", "conversations": [question, {"value": caption}]}``. Only the
    beginning of the list is read.

    Args:
        annotations: Name of the list in ``root``.
        entries: How many; the published validation split is 1,000.
        subset: Keep those whose ``image`` holds this text, such as ``coco``; None = all.
        caption: The whole caption with line breaks as spaces, or the part before its first ``". "``.

    Source: Long-CLIP (arXiv 2403.15378) and I0T (arXiv 2412.14384) for the split and the short captions.
    """
    one_of("caption", caption, Caption)
    path = Path(root) / annotations
    require_files(
        [path],
        f"it is on the Hugging Face hub (Lin-Chen/ShareGPT4V), its images belong in {Path(root) / 'data'} "
        "(hypvl docs evaluation)",
    )
    selected: list[tuple[Path, str, list[str]]] = []
    for number, entry in enumerate(_first(path, entries)):
        with expecting(f"{path}, entry {number}", "image and two conversations with a value"):
            image, text = str(entry["image"]), str(entry["conversations"][1]["value"]).replace("\n", " ")
        if subset is None or subset in image:
            text = (short_caption(text) if caption == "short" else text).strip()
            selected.append((image_place(path, Path(root) / "data", image), image, [text]))
    if not selected:
        raise DataError(
            f"{path}: none of its first {entries} entries has {subset!r} in its image; check subset."
        )
    return from_files(selected, path)


@configurable("evaluate")
def caption_folder(root: str | Path, *, images: str = "image", captions: str = "caption") -> CaptionedImages:
    """A text file for each image: ``root/caption/1.txt`` and ``root/image/1.jpg``, the layout of Urban1k.

    Args:
        images: Folder of the images in ``root``, of any extension.
        captions: Folder of the texts in ``root``, UTF-8; a file is one caption, white space as single spaces.
    """
    texts, folder = Path(root) / captions, Path(root) / images
    require_folder(texts, "one .txt an image")
    require_folder(folder, "the images")
    by_stem = ImagesByStem(folder)
    paths = [path for path in texts.glob("*.txt") if path.name[0] != "."]
    if not paths:
        raise MissingDataError(f"{texts}: holds no .txt files; expected one for each image.")
    entries = []
    for path in sorted(paths, key=lambda path: (len(path.stem), path.stem)):
        image = by_stem.get(path.stem) or folder / f"{path.stem}.jpg"
        entries.append((image, image.name, [" ".join(read_text(path).split())]))
    return from_files(entries, texts)


def _first(path: Path, count: int) -> list[Any]:
    """The first elements of a JSON list of objects that may be far larger than memory."""
    try:
        with open_regular(path) as file:
            return [value for _, _, value in islice(JsonList(file, path), count)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
