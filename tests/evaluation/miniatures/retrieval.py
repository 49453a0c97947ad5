"""COCO, ECCV Caption, Flickr30k, NoCaps, Urban1k and DOCCI in small; `root` stands for ./datasets.

Fills roots.coco, roots.eccv_caption, roots.flickr30k, roots.nocaps, roots.urban1k and roots.docci of
configs/eval_zero_shot_retrieval.py.
"""

import json
from pathlib import Path
from typing import Any

from tests.evaluation.fakes import BLUE, GREEN, RED, image

YELLOW = (178, 178, 0)
#: COCO id, colour, captions with their ids.
SCENES: tuple[tuple[int, tuple[int, int, int], dict[int, str]], ...] = (
    (391895, RED, {770337: "A red door.", 771687: "Something red on a wall."}),
    (522418, GREEN, {681330: "A green field.\n", 686718: "green grass"}),
    (184613, BLUE, {474921: "The blue sky.", 479322: "A blue lake."}),
    (318219, YELLOW, {554625: "A yellow bus.", 557361: "One yellow taxi."}),
    (554625, RED, {103610: "a red apple", 103611: "A red tomato."}),
)


def write(path: Path, content: Any) -> Path:
    """JSON, or a text as it is; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def make(root: Path) -> None:
    """Write all of them below ``root``."""
    make_coco(root / "coco")
    make_eccv(root / "eccv_caption")
    make_flickr30k(root / "flickr30k")
    make_nocaps(root / "nocaps")
    make_urban1k(root / "Urban1k")
    make_docci(root / "docci")


def make_coco(root: Path) -> None:
    """val2017 with captions_val2017.json, and Karpathy's dataset_coco.json over val2014."""
    for number, color, _ in SCENES:
        image(root / "val2017" / f"{number:012}.jpg", color)
        image(root / "val2014" / f"COCO_val2014_{number:012}.jpg", color)
    content = {
        "info": {"description": "COCO 2017 Dataset"},
        "images": [{"license": 4, "file_name": f"{n:012}.jpg", "height": 7, "width": 9, "id": n} for n, _, _ in SCENES],
        "annotations": [
            {"image_id": n, "id": key, "caption": text} for n, _, own in reversed(SCENES) for key, text in own.items()
        ],
    }  # fmt: skip
    write(root / "annotations" / "captions_val2017.json", content)
    images = [
        {
            "filepath": "val2014",
            "sentids": list(own),
            "filename": f"COCO_val2014_{number:012}.jpg",
            "imgid": position,
            "split": "test",
            "sentences": [
                {"tokens": text.lower().split(), "raw": text, "imgid": position, "sentid": key}
                for key, text in own.items()
            ],
            "cocoid": number,
        }
        for position, (number, _, own) in enumerate(SCENES)
    ]
    other = images[0] | {"split": "restval", "cocoid": 1, "filename": "COCO_val2014_000000000001.jpg"}
    write(root / "dataset_coco.json", {"images": [other, *images], "dataset": "coco"})


def make_eccv(root: Path) -> None:
    """Both red images are right for all red captions; 103612 is a caption outside the gallery, as two really are."""
    red = [key for _, color, own in SCENES if color == RED for key in own]
    write(root / "eccv_image_to_caption.json", {"391895": [*red, 103612], "184613": [474921, 479322]})
    write(root / "eccv_caption_to_image.json", {"770337": [391895, 554625], "681330": [522418]})


def make_flickr30k(root: Path) -> None:
    """dataset_flickr30k.json; the last image is of another split."""
    images = []
    for position, (number, color, own) in enumerate(SCENES):
        name = f"{number}.jpg"
        image(root / "flickr30k_images" / name, color)
        sentences = [
            {"tokens": [], "raw": text, "imgid": position, "sentid": 5 * position + i}
            for i, text in enumerate(own.values())
        ]
        split = "train" if position == len(SCENES) - 1 else "test"
        images.append({"filename": name, "imgid": position, "split": split, "sentences": sentences})
    write(root / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})


def make_nocaps(root: Path, *, name: str = "nocaps_val_4500_captions.json") -> None:
    """The official file with one image of each domain and two captions each."""
    domains = ("in-domain", "near-domain", "out-domain")
    images, annotations = [], []
    for number, (domain, (_, color, own)) in enumerate(zip(domains, SCENES, strict=False)):
        file = f"{number:016x}.jpg"
        image(root / "images" / "val" / file, color)
        images.append({"id": number, "open_images_id": file[:-4], "file_name": file, "domain": domain})
        annotations += [
            {"image_id": number, "id": 2 * number + i, "caption": text} for i, text in enumerate(own.values())
        ]
    write(root / name, {"licenses": [], "info": {}, "images": images, "annotations": annotations})


def make_urban1k(root: Path) -> None:
    """caption/1.txt beside image/1.jpg."""
    for number, (_, color, own) in enumerate(SCENES, start=1):
        image(root / "image" / f"{number}.jpg", color)
        write(
            root / "caption" / f"{number}.txt",
            "\n".join(own.values()) + " The image shows nothing else." * 30,
        )


def make_docci(root: Path) -> None:
    """docci_descriptions.jsonlines with a line of another split."""
    lines = []
    for number, (_, color, own) in enumerate(SCENES):
        split = "train" if number == 0 else "test"
        name = f"{split}_{number:05}"
        image(root / "images" / f"{name}.jpg", color)
        lines.append(
            {
                "example_id": name,
                "split": split,
                "image_file": f"{name}.jpg",
                "description": " ".join(own.values()),
            }
        )
    write(root / "docci_descriptions.jsonlines", "\n".join(map(json.dumps, lines)) + "\n")
