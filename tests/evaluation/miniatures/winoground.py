"""Winoground in small; `root` stands for ./datasets.

Fills roots.winoground of configs/eval_winoground.py.
"""

import json
from pathlib import Path
from typing import Any

from tests.evaluation.fakes import BLUE, GREEN, RED, image


def example(number: int, first: str, second: str, **tags: Any) -> dict[str, Any]:
    """A line of examples.jsonl."""
    return {
        "id": number,
        "image_0": f"ex_{number}_img_0",
        "image_1": f"ex_{number}_img_1",
        "caption_0": first,
        "caption_1": second,
        **tags,
    }


EXAMPLES = [
    example(
        0, "a red dog", "a green dog", tag="Noun", secondary_tag="", num_main_preds=1, collapsed_tag="Object"
    ),
    example(
        1, "it is red", "it was red", tag="Verb", secondary_tag="", num_main_preds=1, collapsed_tag="Relation"
    ),
    example(
        2,
        "blue as red",
        "green as the sea",
        tag="Adjective-Color",
        secondary_tag="Symbolic, Pragmatics",
        num_main_preds=2,
        collapsed_tag="Both",
    ),
]
COLORS = [(RED, GREEN), (RED, BLUE), (BLUE, GREEN)]


def make(root: Path) -> None:
    """Write all of it below ``root``."""
    folder = root / "winoground" / "data"
    for number, colors in enumerate(COLORS):
        for i, color in enumerate(colors):
            image(folder / "images" / f"ex_{number}_img_{i}.png", color)
    (folder / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in EXAMPLES))
