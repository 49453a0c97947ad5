"""SNLI-VE in small; `root` stands for ./datasets.

Fills roots.snli_ve and roots.flickr30k of configs/eval_snli_ve.py.
"""

import json
from pathlib import Path

from tests.evaluation.fakes import BLUE, GREEN, RED, broken, image
from tests.evaluation.miniatures.retrieval import write

IMAGES = {"1234": (RED, "red"), "5678": (GREEN, "green"), "9012": (BLUE, "blue")}


def make(root: Path, *, bad: int = 0) -> None:
    """snli_ve_{train,dev,test}.jsonl, images of the test; hypotheses say the colour, another one, or none.

    The ``bad`` last hypotheses of the test are of images that cannot be read, and have a wrong label.
    """
    for split, copies in (("train", 4), ("dev", 1), ("test", 1)):
        rows = []
        for number in range(copies):
            for name, (color, word) in IMAGES.items():
                if split == "test":
                    image(root / "flickr30k" / "flickr30k_images" / f"{name}.jpg", color)
                other = "green" if word != "green" else "blue"
                hypotheses = {"entailment": word, "contradiction": other, "neutral": "nothing"}
                for label, hypothesis in hypotheses.items():
                    premise = f"a {word}  thing {number}"
                    rows.append(_row(name, label, premise, f"It is {hypothesis}."))
        rows.append(_row("1234", "-", "a red thing", "People disagree."))
        if split == "test":
            for number in range(bad):
                broken(root / "flickr30k" / "flickr30k_images" / f"bad{number}.jpg")
                rows.append(_row(f"bad{number}", "contradiction", "a red thing", "It is red."))
        write(root / "snli_ve" / f"snli_ve_{split}.jsonl", "\n".join(map(json.dumps, rows)) + "\n")


def _row(name: str, label: str, premise: str, hypothesis: str) -> dict[str, str]:
    return {
        "annotator_labels": [label],
        "captionID": f"{name}.jpg#0",
        "gold_label": label,
        "pairID": f"{name}.jpg#0r1",
        "sentence1": premise,
        "sentence2": hypothesis,
        "Flickr30K_ID": name,
    }
