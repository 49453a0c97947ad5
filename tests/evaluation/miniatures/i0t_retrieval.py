"""I0T's data root and caption files in small; `root` stands for ./datasets.

Fills roots.i0t (images, ShareGPT4V) and roots.i0t_captions (GOLD files) of configs/eval_i0t_retrieval.py.
"""

import json
from pathlib import Path

from tests.evaluation.fakes import image as pil_image
from tests.evaluation.miniatures.retrieval import SCENES, make_nocaps, write


def make(root: Path) -> None:
    """Write all of it below ``root``."""
    data, captions = root / "i0t", root / "i0t_captions"
    for name, folder in (("COCO_GOLD", "coco/val2014"), ("Flickr_GOLD", "flickr30k-images")):
        entries = []
        for number, color, own in SCENES:
            file = pil_image(data / folder / f"COCO_val2014_{number:012}.jpg", color).name
            entries.append({"image_id": f"/somewhere/else/{file}", "captions": list(own.values())})
        write(captions / f"{name}.json", entries)
    make_nocaps(data / "nocaps", name="unused.json")
    (captions / "NoCaps_GOLD.json").write_bytes((data / "nocaps" / "unused.json").read_bytes())
    make_share_gpt4v(data / "sharegpt4v")


def make_share_gpt4v(root: Path) -> None:
    """The list in LLaVA's layout."""
    entries = []
    for number, (_, color, own) in enumerate(SCENES):
        source = "coco/train2017" if number < 4 else "sam/images"
        image = f"{source}/{number:012}.jpg"
        pil_image(root / "data" / image, color)
        long = "\n".join(own.values()) + " It is an image of nothing else." * 30
        turns = [{"from": "human", "value": "What is it?\n<image>"}, {"from": "gpt", "value": long}]
        entries.append({"id": f"{number:012}", "image": image, "conversations": turns})
    write(root / "share-captioner_coco_lcs_sam_1246k_1107.json", json.dumps(entries, indent=1))
