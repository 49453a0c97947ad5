"""Reader of VALSE: captions and foils of six linguistic phenomena, in eleven files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypvl.allowlist import configurable
from hypvl.datasets.composition.choices import Choice, Choices, ImageCollector
from hypvl.datasets.files import integer_of, read_entries, require_files, text_of
from hypvl.errors import DataError
from hypvl.io.files import is_file

#: Files without ``.json``, each a kind.
PIECES = (
    "existence", "plurals", "counting-hard", "counting-small-quant", "counting-adversarial", "relations",
    "action-replacement", "actant-swap", "coreference-standard", "coreference-hard", "foil-it",
)  # fmt: skip
#: Phenomena of several files, and these files.
_PHENOMENA = {
    "accuracy_counting": ("counting-hard", "counting-small-quant", "counting-adversarial"),
    "accuracy_actions": ("action-replacement", "actant-swap"),
    "accuracy_coreference": ("coreference-standard", "coreference-hard"),
}


@configurable("evaluate")
def valse(
    root: str | Path,
    *,
    coco: str | Path,
    visual7w: str | Path,
    swig: str | Path,
    visdial: str | Path,
    pieces: Sequence[str] = PIECES,
    min_votes: int = 2,
) -> Choices:
    """VALSE: ``root/data/<piece>.json``, each ``{id: {"image_file", "caption", "foil", "mturk": {"caption": 3, …}}}``.

    Images are found by their names: ``COCO_train2014_…`` and ``COCO_val2014_…`` in ``coco/train2014`` and
    ``coco/val2014``; twelve digits in ``coco/train2017`` or ``coco/val2017``, as ``original_split`` says, or where
    it says neither, whichever has them; ``v7w_…`` in ``visual7w``; ``VisualDialog_val2018_…`` in ``visdial``; all
    others in ``swig``. Published averages: ``accuracy_counting``, ``accuracy_actions``, ``accuracy_coreference``, and
    ``macro_accuracy``, the plain mean of the files.

    Args:
        coco: Folder of COCO's four folders of images.
        visual7w: Folder of Visual7W's images.
        swig: Folder of SWiG's ``images_512``.
        visdial: Folder of VisDial's ``VisualDialog_val2018``.
        pieces: Which of the eleven files, at least one.
        min_votes: Of the three annotators so many must have said that only the caption is true; 0 = keep all.

    Raises:
        MissingDataError: when a file, or all images of one, are not there.
        DataError: naming the entry that cannot be used.

    Source: Parcalabescu et al. 2022 (arXiv 2112.07566).
    """
    if not pieces or not set(pieces) <= set(PIECES):
        raise DataError(f"pieces: got {list(pieces)}; expected some of {', '.join(PIECES)}.")
    folder = Path(root) / "data"
    require_files(
        [folder / f"{piece}.json" for piece in pieces],
        "put VALSE's data/ there (github.com/Heidelberg-NLP/VALSE), or leave these out of pieces",
    )
    folders = {"coco": Path(coco), "v7w": Path(visual7w), "VisualDialog": Path(visdial), "": Path(swig)}
    collector = ImageCollector()
    choices: list[Choice] = []
    counts: dict[str, int] = {}
    for piece in pieces:
        path = folder / f"{piece}.json"
        entries = read_entries(path, dict)
        counts[piece] = len(entries)
        before = len(choices)
        for where, entry in entries:
            name = text_of(entry, "image_file", where)
            foil = text_of(entry, "foil", where)
            caption = text_of(entry, "caption", where)
            if min_votes > 0 and _votes(entry, where) < min_votes:
                continue
            image = collector.add(_place(name, entry, folders), key=name)
            choices.append(Choice(image, caption, (foil,), piece))
        if len(choices) == before:
            raise DataError(f"{path}: no entry has min_votes={min_votes} votes; expected the published file.")
        collector.require(source=path, what="the images of its data set (see hypvl docs evaluation)")
    means = {name: own for name, group in _PHENOMENA.items() if (own := [p for p in group if p in pieces])}
    return Choices(
        collector.images,
        choices,
        collector.keys,
        means | {"macro_accuracy": list(pieces)},
        {"min_votes": min_votes, "entries": counts},
    )


def _place(name: str, entry: Mapping[str, Any], folders: Mapping[str, Path]) -> Path:
    """Where an image lies, by its name."""
    old = re.match(r"COCO_(train|val)2014_", name)
    if old:
        return folders["coco"] / f"{old[1]}2014" / name
    if re.fullmatch(r"\d{12}\.jpg", name):
        split = str(entry.get("original_split", ""))
        named = [part for part in ("val", "train") if split.startswith(part)]
        places = [folders["coco"] / f"{part}2017" / name for part in named or ("val", "train")]
        return next((place for place in places if is_file(place)), places[0])
    prefix = name.split("_")[0]
    return folders[prefix if prefix in ("v7w", "VisualDialog") else ""] / name


def _votes(entry: Mapping[str, Any], where: str) -> int:
    votes = entry.get("mturk")
    if not isinstance(votes, Mapping):
        raise DataError(
            f"{where}: has no votes of annotators (mturk); use the published files, or min_votes=0 to keep all."
        )
    return integer_of(votes, "caption", f"{where}, mturk")
