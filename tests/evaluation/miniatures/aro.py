"""ARO in small; `root` stands for ./datasets.

Fills roots.aro (Visual Genome's relations and attributes), roots.coco and roots.flickr30k (the test splits whose
captions are shuffled) of configs/eval_aro.py.
"""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.evaluation.fakes import BLUE, GREEN, RED, image as pil_image

#: One image: its left third is red, its middle green, its right blue.
NAME = "2321818.jpg"
BOXES = {"red": (0, 0, 10, 12), "green": (10, 0, 10, 12), "blue": (20, 0, 10, 12)}


def case(box: str, true: str, false: str, **more: Any) -> dict[str, Any]:
    """An entry of Visual Genome's files."""
    x, y, w, h = BOXES[box]
    place = {"image_id": 2321818, "image_path": NAME, "bbox_x": x, "bbox_y": y, "bbox_w": w, "bbox_h": h}
    return {**place, "true_caption": true, "false_caption": false, **more}


def relation(box: str, true: str, false: str, name: str) -> dict[str, Any]:
    """An entry of visual_genome_relation.json."""
    first, second = true.split(f" {name} ")
    return case(box, true, false, obj1_name=first, obj2_name=second, relation_name=name)


def make(root: Path) -> None:
    """Write all of it below ``root``."""
    folder = root / "aro" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (30, 12))
    for (x, y, w, h), color in zip(BOXES.values(), (RED, GREEN, BLUE), strict=True):
        image.paste(color, (x, y, x + w, y + h))
    image.save(folder / NAME, format="PNG")
    relations = [
        relation("red", "the red hat is on the dog", "the blue dog is on the hat", "is on"),
        relation("green", "the green bird is above the tree", "the tree is above the red bird", "is above"),
        relation("blue", "the red car is above the road", "the blue road is above the car", "is above"),
        relation("blue", "the blue boy next to the sea", "the sea next to the boy", "next to"),
    ]
    pairs = [
        case(
            "red",
            "the red sign and the old wall",
            "the old sign and the blue wall",
            obj1_name="sign",
            obj2_name="wall",
            attributes=["red", "old"],
        )
        for _ in range(25)
    ]
    pairs.append(
        case(
            "blue",
            "the green sign and the wet wall",
            "the wet sign and the blue wall",
            obj1_name="sign",
            obj2_name="wall",
            attributes=["green", "wet"],
        )
    )
    (root / "aro" / "visual_genome_relation.json").write_text(json.dumps(relations))
    (root / "aro" / "visual_genome_attribution.json").write_text(json.dumps(pairs))
    make_order(root / "coco", "coco_karpathy_test.json", "val2014/COCO_val2014_{:012}.jpg")
    make_order(
        root / "flickr30k", "flickr30k_test.json", "flickr30k-images/{}.jpg", "flickr30k_images/{}.jpg"
    )


def make_order(root: Path, file: str, name: str, place: str | None = None) -> None:
    """Karpathy's test split; images may lie elsewhere than the file says."""
    entries = []
    for number, (color, captions) in enumerate(
        {
            RED: ["A man rides a brown horse on the beach.", "The horse (brown) runs near a man!"],
            GREEN: ["Two dogs chase a ball in the green park.", "a black dog and a white cat sit on a sofa"],
            BLUE: ["Dog."],
        }.items(),
        start=391895,
    ):
        pil_image(root / (name if place is None else place).format(number), color)
        entries.append({"image": name.format(number), "caption": captions})
    root.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(entries))
