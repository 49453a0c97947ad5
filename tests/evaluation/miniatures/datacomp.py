"""DataComp's sets in small, in folders as its download makes them, and WinoGAViL; `root` stands for ./datasets.

Fills roots.datacomp and roots.winogavil of configs/eval_datacomp.py; COCO and Flickr30k are those of retrieval.py. The
first class of each set is red, the second blue.
"""

import json
from pathlib import Path

from hypvl.report.datacomp_tasks import TASKS
from tests.evaluation.fakes import BLUE, GREEN, RED, image
from tests.evaluation.miniatures.classification import webdataset

#: Numbers of each sample, the group first: of two regions or income groups each class has an image.
ROWS = {
    "wilds/fmow": ((0, 16), (5, 16)) * 2,
    "dollar_street": ((0, 1), (3, 1)) * 2,
    "geode": ((2, 0), (4, 0)) * 2,
}


def make(root: Path) -> None:
    """Write all of it below ``root``."""
    for key in TASKS:
        if key.partition("/")[0] not in ("retrieval", "misc"):
            names = ["red thing", "blue thing", "book", "cup", "hat", "spoon"]
            classes = names if key in ("dollar_street", "wilds/iwildcam") else names[:2]
            folder = root / "datacomp" / f"wds_{key.replace('/', '-')}_test"
            webdataset(folder, classes, ["a photo of a {c}."], splits={"test": 2}, rows=ROWS.get(key, ()))
    make_winogavil(root / "winogavil")


def make_winogavil(root: Path) -> None:
    """Two cues with five candidates each: of the first two are right, of the second one."""
    colors = {"rose": RED, "sky": BLUE, "leaf": GREEN, "cherry": RED, "grass": GREEN}
    for name, color in colors.items():
        image(root / "winogavil_images" / f"{name}.jpg", color)
    entries = [
        {"cue": "red", "candidates": list(colors), "associations": ["rose", "cherry"]},
        {"cue": "indigo blue", "candidates": list(colors), "associations": ["leaf"]},
    ]
    (root / "winogavil_dataset.json").write_text(json.dumps(entries))
