"""Flickr8k with the ratings of people in small, in both forms; `root` stands for ./datasets.

Fills roots.flickr8k of configs/eval_caption_correlation.py with the JSON form (make), or with the release's own text
files (make_text).
"""

from pathlib import Path

from tests.evaluation.fakes import BLUE, GREEN, RED, image
from tests.evaluation.miniatures.retrieval import write

COLORS = {
    "1056338697_4f7d7ce270.jpg": RED,
    "106490881_5a2dd9b7bd.jpg": GREEN,
    "1082379191_ec1e53f996.jpg": BLUE,
    "1084040636_97d9633581.jpg": (178, 178, 0),
}
#: References of each image, tokenised as published.
REFERENCES = {
    "1056338697_4f7d7ce270.jpg": ["A red ball .", "A ball which is red ."],
    "106490881_5a2dd9b7bd.jpg": ["The green  grass .", "A green meadow ."],
    "1082379191_ec1e53f996.jpg": ["The blue sea .", "A blue boat ."],
    "1084040636_97d9633581.jpg": ["A yellow dog .", "The dog is yellow ."],
}
#: (image, the image whose caption it is and its number, the experts' ratings, share of yes and counts).
JUDGEMENTS = (
    ("1056338697_4f7d7ce270.jpg", "1084040636_97d9633581.jpg#0", (2, 2, 3), (0.5, 2, 2)),
    ("1056338697_4f7d7ce270.jpg", "1082379191_ec1e53f996.jpg#0", (1, 1, 1), (0.0, 0, 3)),
    ("106490881_5a2dd9b7bd.jpg", "106490881_5a2dd9b7bd.jpg#1", (4, 4, 4), (1.0, 3, 0)),
    ("106490881_5a2dd9b7bd.jpg", "1084040636_97d9633581.jpg#1", (2, 3, 2), (0.25, 1, 3)),
    ("1082379191_ec1e53f996.jpg", "1056338697_4f7d7ce270.jpg#1", (1, 2, 1), (0.0, 0, 3)),
    ("1084040636_97d9633581.jpg", "1056338697_4f7d7ce270.jpg#0", (3, 3, 2), (0.75, 3, 1)),
)


def make(root: Path) -> None:
    """flickr8k.json and crowdflower_flickr8k.json, images in images/."""
    folder = root / "flickr8k"
    for name, color in COLORS.items():
        image(folder / "images" / name, color)
    files: dict[str, dict[str, dict[str, object]]] = {"flickr8k.json": {}, "crowdflower_flickr8k.json": {}}
    for file, content in files.items():
        for name, references in REFERENCES.items():
            key = name.partition("_")[0]
            rows = []
            for judged, caption, experts, crowd in JUDGEMENTS:
                if judged == name:
                    owner, _, number = caption.partition("#")
                    ratings = experts if file == "flickr8k.json" else crowd[:1]
                    text = REFERENCES[owner][int(number)]
                    about = {"image_id": key, "image_path": f"Flicker8k_Dataset/{name}", "caption": text}
                    rows += [about | {"rating": float(rating)} for rating in ratings]
            content[key] = {
                "image_id": key,
                "image_path": f"Flicker8k_Dataset/{name}",
                "ground_truth": references,
                "human_judgement": rows,
            }
        write(folder / file, content)


def make_text(root: Path) -> None:
    """ExpertAnnotations.txt, CrowdFlowerAnnotations.txt and Flickr8k.token.txt, images in Flicker8k_Dataset/."""
    folder = root / "flickr8k"
    for name, color in COLORS.items():
        image(folder / "Flicker8k_Dataset" / name, color)
    tokens = [f"{name}#{i}\t{text}" for name, own in REFERENCES.items() for i, text in enumerate(own)]
    write(folder / "Flickr8k.token.txt", "\n".join(tokens) + "\n")
    experts = ["\t".join(map(str, (name, key, *ratings))) for name, key, ratings, _ in JUDGEMENTS]
    write(folder / "ExpertAnnotations.txt", "\n".join(experts) + "\n")
    crowd = ["\t".join(map(str, (name, key, *row))) for name, key, _, row in JUDGEMENTS]
    write(folder / "CrowdFlowerAnnotations.txt", "\n".join(crowd) + "\n")
