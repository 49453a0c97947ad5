"""A retrieval set of colours, written as a JSON-lines file."""

import json
from pathlib import Path

from hypvl.datasets.retrieval.captioned import CaptionedImages
from hypvl.datasets.retrieval.table import table
from tests.evaluation.fakes import BLUE, GREEN, RED, broken, image

YELLOW = (179, 179, 0)
IMAGES = {"a": (RED, "red"), "b": (GREEN, "shape"), "c": (BLUE, "blue"), "d": (YELLOW, "yellow")}


def captioned(folder: Path, *, bad: int = 0, copies: int = 1) -> CaptionedImages:
    """Four images with two captions each (the second is "green"), ``bad`` broken ones, and one without captions."""
    lines = []
    for copy in range(copies):
        for name, (color, caption) in IMAGES.items():
            file = f"{name}{copy or ''}.png"
            image(folder / file, color)
            lines.append({"image": file, "captions": [caption, "green"]})
    for i in range(bad):
        broken(folder / f"bad{i}.png")
        lines.append({"image": f"bad{i}.png", "captions": ["green"]})
    image(folder / "alone.png", RED)
    lines.append({"image": "alone.png", "captions": []})
    path = folder / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return table(path)
