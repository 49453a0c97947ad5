"""Reader of What's Up: captions that differ in a preposition."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.composition.choices import Choice, ImageCollector, JointChoices
from hypvl.datasets.files import image_place, read_entries, require_files, text_of
from hypvl.errors import DataError

Part: TypeAlias = Literal[
    "controlled_images",
    "controlled_clevr",
    "coco_qa_one_obj",
    "coco_qa_two_obj",
    "vg_qa_one_obj",
    "vg_qa_two_obj",
]

#: Part -> its file, and where its images lie below the root.
PARTS: Mapping[Part, tuple[str, str]] = {
    "controlled_images": ("controlled_images_dataset.json", "controlled_images"),
    "controlled_clevr": ("controlled_clevr_dataset.json", "controlled_clevr"),
    "coco_qa_one_obj": ("coco_qa_one_obj.json", "val2017"),
    "coco_qa_two_obj": ("coco_qa_two_obj.json", "val2017"),
    "vg_qa_one_obj": ("vg_qa_one_obj.json", "vg_images"),
    "vg_qa_two_obj": ("vg_qa_two_obj.json", "vg_images"),
}
_NAME = re.compile(r"(.+?)_(left_of|right_of|on|under|in-front_of|behind)_(.+)\.\w+")
_LONGEST_NAME = 255  # characters of a file's name
_OPPOSITE = {"left_of": "right_of", "on": "under", "in-front_of": "behind"}


@configurable("evaluate")
def whatsup(root: str | Path, *, part: Part, images: str | Path | None = None) -> JointChoices:
    """One of the six parts of What's Up, by :data:`PARTS`.

    The controlled parts are lists of ``{"image_path", "caption_options": [true, false, false, false]}``. Their images
    are called ``<object>_<preposition>_<object>.jpeg``: the preposition is the kind; of the same objects two opposite
    prepositions are a pair (``pair_accuracy``) and all four a set (``set_accuracy``). The other parts are lists of
    ``[image id, true, false]``, with images ``000000000139.jpg`` of COCO or ``2.jpg`` of Visual Genome; their kind is
    the part.

    Args:
        root: Folder of the JSON files.
        part: Which part.
        images: Folder of the part's images; None = the folder of :data:`PARTS` in ``root``.

    Raises:
        MissingDataError: when the file or all images are not there.
        DataError: naming the entry that cannot be used.

    Source: Kamath et al. 2023 (arXiv 2310.19785).
    """
    file, below = PARTS[one_of("part", part, Part)]
    path = Path(root) / file
    require_files([path], "put What's Up's JSON files there (github.com/amitakamath/whatsup_vlms)")
    folder = Path(root) / below if images is None else Path(images)
    collector, choices = ImageCollector(), []
    for where, entry in read_entries(path, list):
        if part.startswith("controlled"):
            name = text_of(entry, "image_path", where).rpartition("/")[2]
            texts = entry.get("caption_options")
            match = _parts(name)
            kind = match[2] if match else "other"
        else:
            name, texts, kind = _image(entry, part, where), entry[1:], part
        if not isinstance(texts, list) or len(texts) < 2 or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{where}: expected a true caption and false ones; got {str(entry)[:120]}")
        image = collector.add(image_place(path, folder, name), key=name)
        choices.append(Choice(image, texts[0], tuple(texts[1:]), kind))
    collector.require(source=path, what=f"the images of {part} (github.com/amitakamath/whatsup_vlms)")
    return JointChoices(collector.images, choices, collector.keys, joint=_together(choices, collector.keys))


def _parts(name: str) -> re.Match[str] | None:
    """Object, preposition and object in the name of an image; None for another name."""
    return _NAME.fullmatch(name) if len(name) <= _LONGEST_NAME else None


def _image(entry: Any, part: str, where: str) -> str:
    match entry:
        case [int(number), str(), str()] if not isinstance(number, bool):
            return f"{number:012d}.jpg" if part.startswith("coco") else f"{number}.jpg"
    raise DataError(f"{where}: expected [image id, true caption, false caption]; got {str(entry)[:120]}")


def _together(choices: list[Choice], keys: list[str]) -> dict[str, list[list[int]]]:
    """Pairs and sets of choices by the objects of their images; only what is there in full."""
    by_objects: dict[tuple[str, str], dict[str, int]] = {}
    for i, choice in enumerate(choices):
        match = _parts(keys[choice.image])
        if match:
            by_objects.setdefault((match[1], match[3]), {})[match[2]] = i
    pairs = [
        [own[one], own[other]]
        for own in by_objects.values()
        for one, other in _OPPOSITE.items()
        if one in own and other in own
    ]
    sets = [list(own.values()) for own in by_objects.values() if len(own) == 4]
    return {name: own for name, own in (("pair_accuracy", pairs), ("set_accuracy", sets)) if own}
