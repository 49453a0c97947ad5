"""The newer compositional sets in small; `root` stands for ./datasets.

Fills the roots of configs/eval_compositionality.py. Captions are the colours of their images.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.evaluation.fakes import BLUE, GREEN, RED, image

COCO = {"000000085329.jpg": RED, "000000297343.jpg": GREEN}
#: Kind -> entries of SugarCrepe++.
PARAPHRASES: dict[str, list[tuple[str, str, str, str]]] = {
    "swap_object": [("000000085329.jpg", "a red dog", "the dog is red", "a green dog")],
    "swap_attribute": [("000000297343.jpg", "a green hat", "the hat is blue", "a red hat")],
    "replace_object": [("000000297343.jpg", "a green hat", "the hat is green", "a red cat")],
    "replace_attribute": [("000000085329.jpg", "a red hat", "the hat is red", "a blue hat")],
    "replace_relation": [
        ("000000085329.jpg", "a red hat on a dog", "a dog in a red hat", "a green hat by it")
    ],
}


def make(root: Path) -> None:
    """Write all of them below ``root``."""
    for write in (
        sugarcrepe_pp, colorswap, eqben, vismin, coco_counterfactuals, cola, whatsup, negbench, crepe, spec, svo_probes,
        mmvp_vlm,
    ):  # fmt: skip
        write(root)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sugarcrepe_pp(root: Path) -> None:
    for name, color in COCO.items():
        image(root / "coco" / "val2017" / name, color)
    for kind, rows in PARAPHRASES.items():
        entries = [
            {"id": i, "filename": name, "caption": first, "caption2": second, "negative_caption": false}
            for i, (name, first, second, false) in enumerate(rows)
        ]
        write_json(root / "sugarcrepe_pp" / "data" / f"{kind}.json", entries)


def _pair_images(folder: Path) -> None:
    for name, color in IMAGES.items():
        image(folder / name, color)


IMAGES = {"a.png": RED, "b.png": GREEN, "c.png": BLUE}
CAPTIONS = {"a.png": "a red apple and a pear", "b.png": "an apple and a green pear", "c.png": "a blue apple"}
#: (first image, second image, kind) of each group.
PAIRS = (("a.png", "b.png", "one"), ("b.png", "c.png", "two"))


def _pairs(images: tuple[str, str], captions: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            images[0]: first,
            captions[0]: CAPTIONS[first],
            images[1]: second,
            captions[1]: CAPTIONS[second],
        }
        for i, (first, second, _) in enumerate(PAIRS)
    ]


def colorswap(root: Path) -> None:
    _pair_images(root / "colorswap" / "images")
    entries = _pairs(("image_1", "image_2"), ("caption_1", "caption_2"))
    for entry, (*_, kind) in zip(entries, PAIRS, strict=True):
        entry["image_source"] = kind
    write_json(root / "colorswap" / "test.json", entries)


def eqben(root: Path) -> None:
    _pair_images(root / "eqben" / "images")
    entries = _pairs(("image0", "image1"), ("caption0", "caption1"))
    for entry, (*_, kind) in zip(entries, PAIRS, strict=True):
        entry["private_info"] = {"name": kind}
    write_json(root / "eqben" / "ann_json_finegrained_random.json", entries)


def vismin(root: Path) -> None:
    _pair_images(root / "vismin" / "images")
    entries = _pairs(("image_0", "image_1"), ("text_0", "text_1"))
    for entry, (*_, kind) in zip(entries, PAIRS, strict=True):
        entry["category"] = kind
    write_lines(root / "vismin" / "test.jsonl", entries)


def coco_counterfactuals(root: Path) -> None:
    folder = root / "coco_counterfactuals" / "data"
    _pair_images(folder / "images")
    entries = _pairs(("image_0", "image_1"), ("caption_0", "caption_1"))
    for entry in entries:  # names without extension
        entry |= {name: entry[name].removesuffix(".png") for name in ("image_0", "image_1")}
    write_lines(folder / "examples.jsonl", entries)


def cola(root: Path) -> None:
    folder = root / "cola" / "data"
    _pair_images(folder / "images" / "VG_100K")
    address = "https://cs.stanford.edu/people/rak248/VG_100K/{}"
    rows = [
        [address.format(first), CAPTIONS[first], address.format(second), CAPTIONS[second]]
        for first, second, _ in PAIRS
    ]
    write_json(folder / "COLA_multiobjects_matching_benchmark.json", rows)


def whatsup(root: Path) -> None:
    folder = root / "whatsup"
    prepositions = {
        "controlled_images": (("left_of", RED), ("right_of", GREEN), ("on", BLUE), ("under", GREEN)),
        "controlled_clevr": (("in-front_of", RED), ("behind", GREEN)),
    }
    words = {RED: "red", GREEN: "green", BLUE: "blue"}
    for part, rows in prepositions.items():
        entries = []
        for preposition, color in rows:
            name = f"mug_{preposition}_table.jpeg"
            image(folder / part / name, color)
            true = words[color]
            options = [f"a {word} mug" for word in (true, *sorted(set(words.values()) - {true}))]
            entries.append({"image_path": f"data/{part}/{name}", "caption_options": options})
        write_json(folder / f"{part}_dataset.json", entries)
    for name, color in COCO.items():
        image(root / "coco" / "val2017" / name, color)
    for part in ("coco_qa_one_obj", "coco_qa_two_obj"):
        write_json(folder / f"{part}.json", [[85329, "a red dog", "a green dog"], [297343, "green", "red"]])
    for number, color in ((2, RED), (3, GREEN)):
        image(folder / "vg_images" / f"{number}.jpg", color)
    for part in ("vg_qa_one_obj", "vg_qa_two_obj"):
        write_json(folder / f"{part}.json", [[2, "a red dog", "a green dog"], [3, "green", "red"]])


def negbench(root: Path) -> None:
    for name, color in COCO.items():
        image(root / "coco" / "val2017" / name, color)
    voc = root / "voc2007" / "VOCdevkit" / "VOC2007" / "JPEGImages"
    for name, color in (("000000.jpg", RED), ("000001.jpg", GREEN)):
        image(voc / name, color)
    columns = "image_path,correct_answer,caption_0,caption_1,caption_2,caption_3,correct_answer_template"
    for file, where, names in (
        ("COCO_val_mcq_llama3.1_rephrased.csv", "data/coco/images/val2017", list(COCO)),
        ("VOC2007_mcq_llama3.1_rephrased.csv", "data/voc2007/JPEGImages", ["000000.jpg", "000001.jpg"]),
    ):
        rows = [
            f"{where}/{names[0]},1,a blue dog,a red dog,a green dog,no dog,positive",
            f"{where}/{names[1]},0,a green dog and no cat,a red dog,no dog,a blue dog,hybrid",
        ]
        path = root / "negbench" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([columns, *rows]) + "\n")


def crepe(root: Path) -> None:
    image(root / "vg" / "VG_100K" / "2.jpg", RED)
    image(root / "vg" / "VG_100K_2" / "3.jpg", GREEN)
    folder = root / "crepe" / "prod_hard_negatives"
    folder.mkdir(parents=True)
    rows = [
        "image_id,x,y,width,height,caption,hard_negs,complexity",
        """2,1,1,5,4,a red dog,"['a green dog', ""a dog's blue hat""]",4""",
        """3,0,0,9,7,a green dog and a cat,"['a red dog and a cat']",5""",
    ]
    for negatives in ("atom", "swap", "negate"):
        (folder / f"prod_vg_hard_negs_{negatives}_all.csv").write_text("\n".join(rows) + "\n")


def spec(root: Path) -> None:
    for part in (
        "absolute_size",
        "relative_size",
        "absolute_spatial",
        "relative_spatial",
        "existence",
        "count",
    ):
        folder = root / "spec" / part
        for name, color in (("a.jpg", RED), ("b.jpg", GREEN), ("c.jpg", BLUE)):
            image(folder / "images" / name, color)
        captions = ["red", "green", "blue"]
        images = [f"images/{name}" for name in ("a.jpg", "b.jpg", "c.jpg")]
        write_json(
            folder / "image2text.json",
            [{"query": name, "keys": captions, "label": label} for label, name in enumerate(images)],
        )
        write_json(
            folder / "text2image.json",
            [{"query": caption, "keys": images, "label": label} for label, caption in enumerate(captions)],
        )


def svo_probes(root: Path) -> None:
    folder = root / "svo_probes"
    for name, color in (("1.jpg", RED), ("2.png", GREEN)):
        image(folder / "images" / name, color)
    columns = (
        "sentence,pos_triplet,neg_triplet,pos_url,neg_url,pos_image_id,neg_image_id,subj_neg,verb_neg,obj_neg"
    )
    rows = [
        'A red dog runs.,"dog,run,","cat,run,",http://a,http://b,1,2,True,False,False',
        'A green dog runs.,"dog,run,","dog,sit,",http://a,http://b,2,1,False,True,False',
        'A dog sees a green cat.,"dog,see,cat","dog,see,cow",http://a,http://b,1,2,False,False,True',
        'A dog sleeps.,"dog,sleep,","dog,sit,",http://a,http://c,1,9,False,True,False',
    ]
    (folder / "svo_probes.csv").write_text("\n".join([columns, *rows]) + "\n")


def mmvp_vlm(root: Path) -> None:
    folder = root / "mmvp_vlm"
    rows = ["Question ID,Type,Statement"]
    for number, (kind, color, text) in enumerate(
        (
            ("Color and Appearance", RED, "a red dog"),
            ("Color and Appearance", GREEN, "a green dog"),
            ("Text", RED, "a red sign"),
            ("Text", BLUE, "a green sign"),
        ),
        start=1,
    ):
        image(folder / "MLLM_VLM Images" / kind / f"{number}.jpg", color)
        rows.append(f"{number},{kind},{text}")
    (folder / "Questions.csv").write_text("\n".join(rows) + "\n")
