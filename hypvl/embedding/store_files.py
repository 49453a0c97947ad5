"""Files of an embedding store: entries of images and texts, their ids and digests, JSON read and written."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from hypvl.errors import DataError
from hypvl.io.files import read_regular, write_output
from hypvl.io.json_text import json_bytes, parse_json

#: In ids of images, between a file and its member: ``test/0.tar::000012``.
INSIDE = "::"
Stamp: TypeAlias = tuple[int, int] | tuple[None, None]  # size and mtime_ns of a file
NO_STAMP: tuple[None, None] = (None, None)


@dataclass(frozen=True)
class Entry:
    """The image or text that a row belongs to, or an unreadable image."""

    id: str  # of the image as its source gives it, or the text itself; empty = none
    digest: str  # of the pixels or tokens that the model sees; empty for an unreadable image
    stamp: Stamp = NO_STAMP  # of the file when it was read
    thumbnail: bytes = b""  # JPEG, or empty


def absolute(image_id: str) -> str:
    """An image's id with an absolute path; URLs as they are."""
    path, separator, inside = image_id.partition(INSIDE)
    # Links are not followed: the id is the path that the user knows.
    return image_id if "://" in path else f"{os.path.abspath(path)}{separator}{inside}"  # noqa: PTH100


def stamp(image_id: str) -> Stamp:
    """Size and time of the file that holds an image; ``NO_STAMP`` if there is no such file."""
    try:
        status = Path(image_id.partition(INSIDE)[0]).stat()
    except (OSError, ValueError):  # ValueError: a null character
        return NO_STAMP
    return status.st_size, status.st_mtime_ns


def image_digest(pixels: Tensor) -> str:
    """SHA-256 of the shape and pixels that the model sees, uint8 (3, H, W)."""
    total = hashlib.sha256(str(tuple(pixels.shape)).encode())
    total.update(pixels.contiguous().numpy().data)
    return total.hexdigest()


def text_digest(tokens: Sequence[int], *, pad_token: int = 0) -> str:
    """SHA-256 of the tokens that the model sees, without the padding at the end."""
    end = len(tokens)
    while end and tokens[end - 1] == pad_token:
        end -= 1
    return hashlib.sha256(" ".join(map(str, tokens[:end])).encode()).hexdigest()


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """A JSON object with these keys. Raises DataError."""
    try:
        content = parse_json(read_regular(path))
        missing = [key for key in keys if key not in content]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it and encode again.") from error
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}; it is not part of a store, move it away.")
    return dict(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all. Raises DataError."""
    write_output(path, json_bytes(content))
