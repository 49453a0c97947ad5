"""What the files of an embedding store say of images and texts, and how they are written."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from hypvl.errors import DataError
from hypvl.io.files import write_atomically
from hypvl.io.json_text import json_bytes, parse_json

#: Between the file and what is meant in it, in ids of images: ``test/0.tar::000012``.
INSIDE = "::"
Stamp: TypeAlias = tuple[int, int]  # size and mtime_ns of a file


@dataclass(frozen=True)
class Entry:
    """What a row, or a broken image, is of.

    Attributes:
        id: Of the image, as its source says it; of a text the text; empty = none.
        digest: Of what the model sees; empty for a broken image.
        stamp: Of the file when it was read, None without one.
        thumbnail: JPEG, or empty.
    """

    id: str
    digest: str
    stamp: Stamp | None = None
    thumbnail: bytes = b""


def absolute(image_id: str) -> str:
    """An image's id from the root of the file system; addresses as they are."""
    path, separator, inside = image_id.partition(INSIDE)
    # Links are not followed: it is what the user calls it.
    return image_id if "://" in path else f"{os.path.abspath(path)}{separator}{inside}"  # noqa: PTH100


def stamp(image_id: str) -> Stamp | None:
    """Size and time of the file an image is in, None where there is no such file."""
    try:
        found = Path(image_id.partition(INSIDE)[0]).stat()
    except (OSError, ValueError):  # ValueError: a null character
        return None
    return found.st_size, found.st_mtime_ns


def image_digest(pixels: Tensor) -> str:
    """Of what the model sees of an image, uint8 (3, H, W)."""
    total = hashlib.sha256(str(tuple(pixels.shape)).encode())
    total.update(pixels.contiguous().numpy().data)
    return total.hexdigest()


def text_digest(tokens: Sequence[int]) -> str:
    """Of what the model sees of a text: its tokens, without the padding with 0 at the end."""
    end = len(tokens)
    while end and tokens[end - 1] == 0:
        end -= 1
    return hashlib.sha256(" ".join(map(str, tokens[:end])).encode()).hexdigest()


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """A JSON object with these keys. Raises DataError."""
    try:
        content = parse_json(path.read_text("utf-8"))
        lost = [key for key in keys if key not in content]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it and encode again.") from error
    if lost:
        raise DataError(f"{path}: lacks {', '.join(lost)}; it is no part of a store, move it away.")
    return dict(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write whole or not at all. Raises DataError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json_bytes(content))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); name another folder.") from error


def stamp_of(size: int | None, mtime_ns: int | None) -> Stamp | None:
    """From its columns in a file."""
    return None if size is None or mtime_ns is None else (size, mtime_ns)


def columns(found: Stamp | None) -> dict[str, int | None]:
    """The other way round."""
    return {"size": None, "mtime_ns": None} if found is None else {"size": found[0], "mtime_ns": found[1]}
