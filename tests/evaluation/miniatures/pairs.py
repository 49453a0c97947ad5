"""A user's own table of images and captions in small, `datasets/mine/pairs.csv` of configs/eval_pairs.py."""

from pathlib import Path

from tests.evaluation.fakes import BLUE, GREEN, RED, image
from tests.evaluation.miniatures.retrieval import write

COLORS = {"red": RED, "green": GREEN, "blue": BLUE}


def make(root: Path) -> None:
    """Sixteen images below ``root / "mine"``, each with a caption of its own."""
    rows = ["image,caption"]
    for number in range(16):
        name = sorted(COLORS)[number % len(COLORS)]
        image(root / "mine" / "images" / f"{number}.png", COLORS[name])
        rows.append(f"images/{number}.png,a {name} square number {number}")
    write(root / "mine" / "pairs.csv", "\n".join(rows) + "\n")
