"""Raw GRIT shards in miniature, as img2dataset writes them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data.helpers import write_tar

CAPTION = "a dog in a field of flowers, with a red ball"
#: start, end, x1, y1, x2, y2, score: "a dog", "a red ball" and "a dog in a field of flowers"
DOG = [0.0, 5.0, 0.25, 0.25, 0.75, 1.0, 0.9]
BALL = [34.0, 44.0, 0.0, 0.0, 0.5, 0.5, 0.7]
DOG_IN_FIELD = [0.0, 27.0, 0.25, 0.25, 0.75, 1.0, 0.9]


def image(width: int = 64, height: int = 48, format: str = "JPEG", **options: Any) -> bytes:
    """Left half red, right half blue; the lower half darker."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2, 0] = 250
    pixels[:, width // 2 :, 2] = 250
    pixels[height // 2 :] //= 2
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format, **options)
    return out.getvalue()


def notes(**changes: Any) -> bytes:
    """The json of a sample; a change to None takes the entry out."""
    fields: dict[str, Any] = {
        "caption": CAPTION, "url": "https://example.org/1.jpg", "key": "000000001", "status": "success",
        "error_message": None, "width": 64, "height": 48, "original_width": 640, "original_height": 480,
        "exif": "{}", "noun_chunks": [DOG, BALL], "ref_exps": [DOG_IN_FIELD, BALL],
    }  # fmt: skip
    return json.dumps({k: v for k, v in (fields | changes).items() if v is not None}).encode()


def members(**changes: Any) -> dict[str, bytes]:
    """A raw sample by extension; ``jpg``, ``txt`` or ``json`` in the changes replace a member (None: not there),
    everything else changes the json."""
    result: dict[str, bytes | None] = {"jpg": image(), "txt": CAPTION.encode()}
    direct = {name: changes.pop(name) for name in ("jpg", "txt", "json", "png") if name in changes}
    result |= {"json": notes(**changes)} | direct
    return {name: data for name, data in result.items() if data is not None}


def write_shard(path: Path, samples: list[dict[str, bytes]]) -> Path:
    names = [
        (f"{path.stem}{i:04d}.{extension}", data)
        for i, sample in enumerate(samples)
        for extension, data in sample.items()
    ]
    return write_tar(path, names)
