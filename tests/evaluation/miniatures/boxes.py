"""COCO's instances in small, beside its captions; `root` stands for ./datasets.

Fills roots.coco of configs/eval_hierarchical_metrics.py: ``annotations/instances_val2017.json`` for the images of
the retrieval miniature.
"""

import json
from pathlib import Path

from tests.evaluation.miniatures.retrieval import SCENES, make_coco

WIDTH, HEIGHT = 90, 70  # ten times the miniature's images, so that boxes are large enough to count
CATEGORIES = {1: "red", 18: "green", 25: "blue", 44: "yellow"}


def make(root: Path) -> None:
    """Write below ``root / "coco"``; captions and images too where they are not there yet."""
    folder = root / "coco"
    if not (folder / "annotations" / "captions_val2017.json").is_file():
        make_coco(folder)
    images = [
        {"id": identity, "file_name": f"{identity:012d}.jpg", "width": WIDTH, "height": HEIGHT}
        for identity, *_ in SCENES
    ]
    annotations = [
        {
            "id": 10 * at + part,
            "image_id": image["id"],
            "category_id": list(CATEGORIES)[at % 4],
            "bbox": [20.0 * part, 10.0, 40.0, 40.0 + 10.0 * part],
            "area": 1600.0,
            "iscrowd": 0,
        }
        for at, image in enumerate(images)
        for part in (0, 1)
    ]
    annotations.append({**annotations[0], "id": 999, "iscrowd": 1})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": key, "name": name, "supercategory": "color"} for key, name in CATEGORIES.items()
        ],
    }
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
