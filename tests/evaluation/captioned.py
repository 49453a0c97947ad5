"""A retrieval set of colours, written as a JSON-lines file."""

import json
from pathlib import Path

from hypvl.evaluation.datasets.retrieval import CaptionedImages, jsonl
from tests.evaluation.fakes import BLUE, GREEN, RED, broken, picture

YELLOW = (179, 179, 0)
PICTURES = {"a": (RED, "red"), "b": (GREEN, "shape"), "c": (BLUE, "blue"), "d": (YELLOW, "yellow")}


def captioned(folder: Path, *, bad: int = 0, copies: int = 1) -> CaptionedImages:
    """Four pictures with two captions each (the second is "green"), ``bad`` broken ones, and one without captions."""
    lines = []
    for copy in range(copies):
        for name, (color, caption) in PICTURES.items():
            file = f"{name}{copy or ''}.png"
            picture(folder / file, color)
            lines.append({"image": file, "captions": [caption, "green"]})
    for i in range(bad):
        broken(folder / f"bad{i}.png")
        lines.append({"image": f"bad{i}.png", "captions": ["green"]})
    picture(folder / "alone.png", RED)
    lines.append({"image": "alone.png", "captions": []})
    path = folder / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return jsonl(path)
