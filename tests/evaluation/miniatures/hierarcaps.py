"""HierarCaps in small; `root` stands for ./datasets. Fills roots.hierarcaps of configs/eval_hierarchical_metrics.py."""

import csv
from pathlib import Path

from tests.evaluation.fakes import BLUE, GREEN, RED, image

YELLOW = (178, 178, 0)
#: COCO id, colour, captions from the most general to the most specific.
ROWS = (
    (391895, RED, ("shape", "red", "red thing", "red thing with yellow")),
    (522418, GREEN, ("shape", "green", "green thing", "green thing with blue")),
    (184613, BLUE, ("shape", "blue", "blue thing", "blue thing with green")),
    (318219, YELLOW, ("shape", "yellow", "yellow thing", "yellow thing with red")),
)


def make(root: Path) -> None:
    """Write ``hierarcaps/hierarcaps_test.csv`` and ``hierarcaps/images/`` below ``root``."""
    folder = root / "hierarcaps"
    for identity, color, _ in ROWS:
        image(folder / "images" / f"{identity:012d}.jpg", color)
    with (folder / "hierarcaps_test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cocoid", "captions"])
        writer.writerows([identity, " => ".join(captions)] for identity, _, captions in ROWS)
