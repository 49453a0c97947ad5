"""SugarCrepe in small; `root` stands for ./datasets.

Fills roots.sugarcrepe and roots.coco (val2017) of configs/eval_sugarcrepe.py.
"""

import json
from pathlib import Path

from tests.evaluation.fakes import BLUE, GREEN, RED, image

IMAGES = {"000000085329.jpg": RED, "000000297343.jpg": GREEN, "000000412531.jpg": BLUE}
#: Kind -> (image, caption, negative caption).
ENTRIES = {
    "add_obj": [
        ("000000085329.jpg", "A red door.", "A red door and a dog."),
        ("000000297343.jpg", "green", "blue"),
    ],
    "add_att": [("000000297343.jpg", "A green door.", "A blue door.")],
    "replace_obj": [("000000412531.jpg", "A blue door.", "A red lake.")],
    "replace_att": [("000000412531.jpg", "A blue door.", "A red door.")],
    "replace_rel": [("000000085329.jpg", "A blue hat on a door.", "A red hat under a door.")],
    "swap_obj": [("000000085329.jpg", "A red dog sees a cat.", "A cat sees a green dog.")],
    "swap_att": [("000000297343.jpg", "A red door, a wall.", "A door, a green wall.")],
}


def make(root: Path) -> None:
    """Write all of it below ``root``."""
    for name, color in IMAGES.items():
        image(root / "coco" / "val2017" / name, color)
    folder = root / "sugarcrepe" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for kind, entries in ENTRIES.items():
        content = {
            str(number): {"filename": name, "caption": true, "negative_caption": false}
            for number, (name, true, false) in enumerate(entries)
        }
        (folder / f"{kind}.json").write_text(json.dumps(content))
