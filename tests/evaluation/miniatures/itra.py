"""ITRA's tree in small; `root` stands for ./datasets.

Fills roots.itra of configs/eval_itra_classification.py: red and blue class folders, and COCO val2017.
"""

from pathlib import Path

from tests.evaluation.fakes import image
from tests.evaluation.miniatures.classification import COLORS, folders, imagenet_folders
from tests.evaluation.miniatures.retrieval import make_coco

CLASSES = {
    "birdsnap/test": ["Acadian_Flycatcher", "Acorn_Woodpecker"],
    "country211/test": ["AD", "AE"],
    "flowers102/test": ["1", "2"],
    "gtsrb/test": ["00000", "00001"],
    "stanford_cars/test": ["Acura RL Sedan 2012", "BMW X5 SUV 2007"],
    **{f"ucf101/testlist0{i}": ["ApplyEyeMakeup", "YoYo"] for i in (1, 2, 3)},
}


def make(root: Path) -> None:
    """Write it below ``root / "itra"``."""
    base = root / "itra"
    for place, names in CLASSES.items():
        folders(base / place, names, 2)
    for i in range(1, 103):  # numbers say which flower only where the last is there
        (base / "flowers102" / "test" / str(i)).mkdir(exist_ok=True)
    for split in ("train", "test"):
        ids = imagenet_folders(base / "imagenet" / split)
        for label in range(2):
            image(base / "imagenet" / split / ids[label] / "1.JPEG", COLORS[label])
    make_coco(base / "coco2017")
