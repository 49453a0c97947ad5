"""The 20 sets of ELEVATER in small, in its own layout; `root` stands for ./datasets.

Fills roots.elevater of configs/eval_elevater.py: ``root/elevater/<name>_20211007/``. Each set has two classes, red and
blue (VOC 2007 a third, green), with 4 images of each for training and 2 for testing. CIFAR-100 has
``train_images.txt``, VOC 2007 ``train_ic.txt`` and ``val_ic.txt``, RESISC45 a ``val.txt``.
"""

import io
import zipfile
from pathlib import Path

from PIL import Image

from hypvl.datasets.classification.elevater import ELEVATER_SETS
from tests.evaluation.fakes import BLUE, GREEN, RED

COLORS = (RED, BLUE, GREEN)
VERSION = "20211007"


def make(root: Path) -> None:
    """Write all of them below ``root / "elevater"``."""
    for name in ELEVATER_SETS:
        make_set(root / "elevater", name)


def make_set(folder: Path, name: str) -> Path:
    """One of them below ``folder``; returns its own folder."""
    place = folder / f"{name}_{VERSION}"
    place.mkdir(parents=True)
    if name == "voc2007classification":
        (place / "labels.txt").write_text("red_thing\nblue_thing\ngreen_thing\n")
        lines = [([0], 0), ([1], 1), ([0, 1], 0), ([0], 0), ([1, 2], 1), ([2], 2)]
        parts = {"train_ic": ("train.zip", 0), "val_ic": ("train.zip", 6), "test_ic": ("test.zip", 0)}
        for index, (archive, start) in parts.items():
            rows = [
                (f"VOC2007/{i + start:06d}.jpg", labels, color) for i, (labels, color) in enumerate(lines)
            ]
            write_split(place, index, archive, rows)
        return place
    (place / "labels.txt").write_text("red_thing\nblue_thing\n")
    middle = "_images" if name == "cifar100" else ""
    splits = {"train": 4, "test": 2} | ({"val": 2} if name == "resisc45-clip" else {})
    for split, count in splits.items():
        rows = [(f"{split} {i}/{i}.jpg", [i % 2], i % 2) for i in range(2 * count)]
        write_split(place, f"{split}{middle}", f"{split}{middle}.zip", rows)
    return place


def write_split(place: Path, index: str, archive: str, rows: list[tuple[str, list[int], int]]) -> None:
    """An index file and its images (name, labels, colour), added to a ZIP file."""
    text = "".join(f"{archive}@{name} {','.join(map(str, labels))}\n" for name, labels, _ in rows)
    (place / f"{index}.txt").write_text(text)
    with zipfile.ZipFile(place / archive, "a") as out:
        for name, _, color in rows:
            buffer = io.BytesIO()
            Image.new("RGB", (9, 7), COLORS[color]).save(buffer, format="PNG")
            out.writestr(name, buffer.getvalue())
