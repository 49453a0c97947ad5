"""The newer compositional sets in small; `root` stands for ./datasets.

Fills the roots of configs/eval_compositionality.py. Captions are the colours of their images.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.evaluation.fakes import BLUE, GREEN, RED, image

COCO = {"000000085329.jpg": RED, "000000297343.jpg": GREEN}
#: Kind -> entries of SugarCrepe++.
PARAPHRASES: dict[str, list[tuple[str, str, str, str]]] = {
    "swap_object": [("000000085329.jpg", "a red dog", "the dog is red", "a green dog")],
    "swap_attribute": [("000000297343.jpg", "a green hat", "the hat is blue", "a red hat")],
    "replace_object": [("000000297343.jpg", "a green hat", "the hat is green", "a red cat")],
    "replace_attribute": [("000000085329.jpg", "a red hat", "the hat is red", "a blue hat")],
    "replace_relation": [
        ("000000085329.jpg", "a red hat on a dog", "a dog in a red hat", "a green hat by it")
    ],
}


def make(root: Path) -> None:
    """Write all of them below ``root``."""
    for write in (sugarcrepe_pp, colorswap, eqben, vismin, coco_counterfactuals, cola):
        write(root)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sugarcrepe_pp(root: Path) -> None:
    for name, color in COCO.items():
        image(root / "coco" / "val2017" / name, color)
    for kind, rows in PARAPHRASES.items():
        entries = [
            {"id": i, "filename": name, "caption": first, "caption2": second, "negative_caption": false}
            for i, (name, first, second, false) in enumerate(rows)
        ]
        write_json(root / "sugarcrepe_pp" / "data" / f"{kind}.json", entries)


def _pair_images(folder: Path) -> None:
    for name, color in IMAGES.items():
        image(folder / name, color)


IMAGES = {"a.png": RED, "b.png": GREEN, "c.png": BLUE}
CAPTIONS = {"a.png": "a red apple and a pear", "b.png": "an apple and a green pear", "c.png": "a blue apple"}
#: (first image, second image, kind) of each group.
PAIRS = (("a.png", "b.png", "one"), ("b.png", "c.png", "two"))


def _pairs(images: tuple[str, str], captions: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            images[0]: first,
            captions[0]: CAPTIONS[first],
            images[1]: second,
            captions[1]: CAPTIONS[second],
        }
        for i, (first, second, _) in enumerate(PAIRS)
    ]


def colorswap(root: Path) -> None:
    _pair_images(root / "colorswap" / "images")
    entries = _pairs(("image_1", "image_2"), ("caption_1", "caption_2"))
    for entry, (*_, kind) in zip(entries, PAIRS, strict=True):
        entry["image_source"] = kind
    write_json(root / "colorswap" / "test.json", entries)


def eqben(root: Path) -> None:
    _pair_images(root / "eqben" / "images")
    entries = _pairs(("image0", "image1"), ("caption0", "caption1"))
    for entry, (*_, kind) in zip(entries, PAIRS, strict=True):
        entry["private_info"] = {"name": kind}
    write_json(root / "eqben" / "ann_json_finegrained_random.json", entries)


def vismin(root: Path) -> None:
    _pair_images(root / "vismin" / "images")
    entries = _pairs(("image_0", "image_1"), ("text_0", "text_1"))
    for entry, (*_, kind) in zip(entries, PAIRS, strict=True):
        entry["category"] = kind
    write_lines(root / "vismin" / "test.jsonl", entries)


def coco_counterfactuals(root: Path) -> None:
    folder = root / "coco_counterfactuals" / "data"
    _pair_images(folder / "images")
    entries = _pairs(("image_0", "image_1"), ("caption_0", "caption_1"))
    for entry in entries:  # names without extension
        entry |= {name: entry[name].removesuffix(".png") for name in ("image_0", "image_1")}
    write_lines(folder / "examples.jsonl", entries)


def cola(root: Path) -> None:
    folder = root / "cola" / "data"
    _pair_images(folder / "images" / "VG_100K")
    address = "https://cs.stanford.edu/people/rak248/VG_100K/{}"
    rows = [
        [address.format(first), CAPTIONS[first], address.format(second), CAPTIONS[second]]
        for first, second, _ in PAIRS
    ]
    write_json(folder / "COLA_multiobjects_matching_benchmark.json", rows)
