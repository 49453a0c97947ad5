"""VOC 2007, COCO's objects, ComCo and SimCo in small; `root` stands for ./datasets.

Fills roots.voc2007, roots.comco and roots.simco of configs/eval_multilabel.py; COCO's instances are those of boxes.py.
"""

import json
from pathlib import Path

from hypvl.datasets.classification.multi_label import VOC_CLASSES
from tests.evaluation.fakes import BLUE, GREEN, RED, image

COLORS = (RED, GREEN, BLUE, RED)
#: Class -> 1, -1 or 0 of the four images; -1 of all others.
VOC = {"bird": (1, -1, -1, 1), "boat": (-1, 1, -1, 0), "pottedplant": (1, -1, 1, -1)}


def make(root: Path) -> None:
    """Write all of it below ``root``."""
    voc(root)
    for name, classes in (("comco", ("chair", "lamp")), ("simco", ("cube", "sphere"))):
        lines = []
        for i, color in enumerate(COLORS[:3]):
            image(root / name / "images" / f"{i}.png", color)
            lines.append({"image": f"images/{i}.png", "labels": list(classes[: 1 + i % 2])})
        (root / name / "annotations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def voc(root: Path) -> None:
    folder = root / "voc2007" / "VOCdevkit" / "VOC2007"
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for i, color in enumerate(COLORS):
        image(folder / "JPEGImages" / f"{i:06d}.jpg", color)
    for name in VOC_CLASSES:
        lines = [f"{i:06d} {value:2d}\n" for i, value in enumerate(VOC.get(name, (-1,) * 4))]
        (folder / "ImageSets" / "Main" / f"{name}_test.txt").write_text("".join(lines))
