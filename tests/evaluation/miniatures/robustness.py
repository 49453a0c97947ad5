"""ImageNet's variants, ObjectNet and sets of the hub in small; `root` stands for ./datasets.

Fills roots.eval of configs/eval_robustness.py; ImageNet itself is that of classification.py. The first class of each
set is red, the second blue.
"""

import json
from pathlib import Path

from tests.evaluation.fakes import BLUE, GREEN, RED, image
from tests.evaluation.miniatures.classification import webdataset

#: The first two of ImageNet's classes, tench and goldfish.
IDS = ("n01440764", "n01443537")
HUB = {
    "imagenet_sketch": ("tench", "goldfish"),
    "vtab-svhn": ("0", "1"),
    "vtab-clevr_closest_object_distance": ("very nearby", "near"),
    "vtab-kitti_closest_vehicle_distance": ("a car on my left", "no car"),
    "vtab-dmlab": ("apples far", "apples near"),
    "voc2007": ("aeroplane", "bicycle"),
    "fer2013": ("angry", "happy"),
}


def make(root: Path) -> None:
    """Write all of it below ``root / "eval"``."""
    folder = root / "eval"
    for name, classes in HUB.items():
        webdataset(folder / name, classes, ["a photo of {c}."], splits={"test": 2})
    for name, classes in (
        ("imagenet-a", IDS),
        ("imagenet-r", IDS),
        ("imagenetv2-matched-frequency-format-val", ("0", "1")),
    ):
        class_folders(folder / name, classes)
    for name in IDS:
        image(folder / "imagenet-o" / name / "a.png", GREEN)
    objectnet(folder / "objectnet-1.0")


def class_folders(folder: Path, classes: tuple[str, ...]) -> None:
    for name, color in zip(classes, (RED, BLUE), strict=True):
        for i in range(2):
            image(folder / name / f"{i}.png", color)


def objectnet(folder: Path) -> None:
    for name, color in (
        ("alarm_clock", RED),
        ("backpack", BLUE),
        ("bath_towel", GREEN),
        ("bills_money", GREEN),
    ):
        image(folder / "images" / name / "a.png", color)
    labels = {
        "alarm_clock": "Alarm clock",
        "backpack": "Backpack",
        "bath_towel": "Bath towel",
        "bills_money": "Bills (money)",
    }
    overlap = {
        "Alarm clock": "analog clock; digital clock",
        "Backpack": "backpack, back pack",
        "Bath towel": "bath towel",
    }
    for name, content in (("folder_to_objectnet_label", labels), ("objectnet_to_imagenet_1k", overlap)):
        path = folder / "mappings" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
