"""VALSE in small; `root` stands for ./datasets.

Fills roots.valse, roots.coco (train2014, val2014, train2017, val2017), roots.visual7w, roots.swig and roots.visdial
of configs/eval_valse.py.
"""

import json
from pathlib import Path
from typing import Any

from tests.evaluation.fakes import BLUE, GREEN, RED, image as pil_image

COLORS = {"red": RED, "green": GREEN, "blue": BLUE}
#: Piece -> data set, folder below ./datasets, image, split, colour.
SOURCES = {
    "existence": ("visual7w", "visual7w/images", "v7w_2353588.jpg", "test", "red"),
    "plurals": ("coco_2017", "coco/val2017", "000000078266.jpg", "val", "green"),
    "counting-hard": ("visual7w", "visual7w/images", "v7w_2319830.jpg", "test", "blue"),
    "counting-small-quant": ("visual7w", "visual7w/images", "v7w_2353588.jpg", "test", "red"),
    "counting-adversarial": ("visual7w", "visual7w/images", "v7w_2319830.jpg", "test", "blue"),
    "relations": ("coco_2017", "coco/train2017", "000000186422.jpg", "train", "green"),
    "action-replacement": ("SWiG", "swig/images_512", "exercising_255.jpg", "test", "red"),
    "actant-swap": ("SWiG", "swig/images_512", "nuzzling_255.jpg", "test", "blue"),
    "coreference-standard": ("VisDial_v1.0", "coco/train2014", "COCO_train2014_000000498943.jpg", "train", "green"),
    "coreference-hard": (
        "VisDial_v1.0", "visdial/VisualDialog_val2018", "VisualDialog_val2018_000000254080.jpg", "val", "red",
    ),
    "foil-it": ("FOIL dataset", "coco/val2014", "COCO_val2014_000000522703.jpg", "test", "blue"),
}  # fmt: skip
#: Pieces with an entry that the fake model gets wrong.
WRONG = ("counting-hard", "actant-swap", "coreference-hard", "foil-it")


def entry(piece: str, caption: str, foil: str, *, votes: int) -> dict[str, Any]:
    """An entry of a file."""
    dataset, _, image, split, _ = SOURCES[piece]
    return {
        "dataset": dataset,
        "original_split": split,
        "dataset_idx": image,
        "linguistic_phenomena": piece.split("-")[0],
        "image_file": image,
        "caption": caption,
        "classes": caption.split()[1],
        "classes_foil": foil.split()[1],
        "mturk": {"foil": 3 - votes, "caption": votes, "other": 0},
        "foil": foil,
    }


def make(root: Path) -> None:
    """Write all of it below ``root``: of each piece one entry that is right to the fake model, two votes; one that is
    right but for the pieces in ``WRONG``, three votes; and one with a single vote."""
    folder = root / "valse" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for piece, (_, place, image, _, color) in SOURCES.items():
        pil_image(root / place / image, COLORS[color])
        other = "green" if color == "red" else "red"
        true, false = f"A {color} thing.", f"A {other} thing."
        second = (false, true) if piece in WRONG else (true, false)
        content = {
            f"{piece}_0": entry(piece, true, false, votes=2),
            f"{piece}_1": entry(piece, *second, votes=3),
            f"{piece}_2": entry(piece, false, true, votes=1),
        }
        (folder / f"{piece}.json").write_text(json.dumps(content))
