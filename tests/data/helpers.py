"""Small real TARs and JPEGs, and a tokenizer whose rows can be read back."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def jpeg(seed: int, width: int = 40, height: int = 30) -> bytes:
    """A smooth coloured image, different for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (3, 4, 3), dtype=np.uint8))
    return encode(small.resize((width, height), Image.Resampling.BICUBIC), "JPEG", quality=90)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def redcaps(name: str, seed: int, subreddit: str | None = "itookapicture") -> list[tuple[str, bytes]]:
    """The members of one sample, RedCaps style; its caption is "caption <seed>"."""
    notes = {"caption": f"caption {seed}"} | ({} if subreddit is None else {"subreddit": subreddit})
    return [(f"{name}.jpg", jpeg(seed)), (f"{name}.json", json.dumps(notes).encode())]


class Letters:
    """A token per letter: rows can be read back with :func:`text_of`."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = [torch.tensor([ord(letter) for letter in text]) for text in texts]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def text_of(row: Tensor) -> str:
    return "".join(chr(code) for code in row.tolist() if code)
