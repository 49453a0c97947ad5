"""VL-CheckList in small; `root` stands for ./datasets.

Fills roots.vlchecklist and roots.vlchecklist_images of configs/eval_vlchecklist.py.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.evaluation.fakes import BLUE, GREEN, RED, image

IMAGES = {
    "vg/VG_100K/2321818.jpg": RED,
    "vg/VG_100K_2/2394711.jpg": GREEN,
    "swig/exercising_255.jpg": BLUE,
    "hake/hico_20160224_det/images/test2015/HICO_test2015_00000001.jpg": RED,
}


def texts(true: str, false: str) -> dict[str, list[str]]:
    """The texts of an entry; the second ones are not asked."""
    return {"POS": [true, "not asked, blue"], "NEG": [false, "not asked, red"]}


VG, VG2 = "VG_100K/2321818.jpg", "VG_100K_2/2394711.jpg"
HAKE = "hico_20160224_det/images/test2015/HICO_test2015_00000001.jpg"
#: Place in the corpus -> entries.
FILES: dict[str, list[Any]] = {
    "Object/Location/center/vg_obj": [
        [VG, texts("red door", "blue door")],
        [VG2, texts("red sky", "green sky")],
    ],
    "Object/Location/center/swig_agent": [["exercising_255.jpg", texts("blue man", "red man")]],
    "Object/Size/large/hake": [[HAKE, texts("red bike", "bike")]],
    "Attribute/color/vg": [[VG2, texts("green grass", "red grass")], [VG, texts("red wall", "green wall")]],
    "Attribute/color/vaw": [[VG, texts("green wall", "red wall")]],
    "Relation/action/vg": [[VG2, texts("wall eats green dog", "dog eats wall")]],
}


def make(root: Path) -> None:
    """Write all of it below ``root``."""
    folder = root / "vlchecklist"
    for name, color in IMAGES.items():
        image(folder / "images" / name, color)
    for place, entries in FILES.items():
        kind, _, source = place.rpartition("/")
        annotations = Path("data") / kind / f"{source}.json"
        image_root = f"images/{'vg' if source.startswith('v') else source.split('_')[0]}"
        for path in (folder / "corpus" / "v1" / kind, (folder / annotations).parent):
            path.mkdir(parents=True, exist_ok=True)
        (folder / annotations).write_text(json.dumps(entries))
        content = {"ANNO_PATH": str(annotations), "IMG_ROOT": image_root, "TYPE": "TUPLE_JSON"}
        (folder / "corpus" / "v1" / f"{place}.yaml").write_text(yaml.safe_dump(content))
