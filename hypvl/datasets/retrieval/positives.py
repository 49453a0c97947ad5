"""Readers of files that name more correct images of captions and captions of images (ECCV Caption, CxC)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.files import read_json, require_files
from hypvl.errors import DataError


@dataclass(frozen=True)
class Positives:
    """What is right for a query, by the ids of the data set."""

    image_to_text: Mapping[str, frozenset[str]]  # image id -> ids of its right captions
    text_to_image: Mapping[str, frozenset[str]]  # caption id -> ids of its right images
    source: str  # where they come from


@configurable("evaluate")
def caption_positives(root: str | Path, *, name: str = "eccv") -> Positives:
    """``root/<name>_image_to_caption.json`` and ``root/<name>_caption_to_image.json``, as ECCV Caption publishes them.

    Each is one JSON object: the id of a query (COCO's image ids; COCO's annotation ids for captions) and the list of
    the ids that are right for it. The files lie in the folder ``eccv_caption/data`` of the package ``eccv_caption``
    (``pip download eccv_caption``; MIT licence), of which only these files are used.

    Args:
        name: ``eccv`` (1,261 images and 1,332 captions are queries), ``cxc``, or ``original``.

    Raises:
        MissingDataError: when a file is not there.
        DataError: when it has another layout.

    Source: Chun et al. 2022 (arXiv 2204.03359).
    """
    paths = [Path(root) / f"{name}_{way}.json" for way in ("image_to_caption", "caption_to_image")]
    require_files(
        paths,
        "put ECCV Caption's files there (folder eccv_caption/data of the package eccv_caption, or "
        "github.com/naver-ai/eccv-caption)",
    )
    right = [_read(path) for path in paths]
    return Positives(right[0], right[1], source=f"{Path(root).name}/{name}")


def _read(path: Path) -> dict[str, frozenset[str]]:
    content = read_json(path)
    right: dict[str, frozenset[str]] = {}
    for query, items in content.items() if isinstance(content, dict) else ():
        if not isinstance(items, list) or not items:
            raise DataError(f"{path}: has {items!r:.40} for {query!r}; expected a list of ids, at least one.")
        right[query] = frozenset(str(item) for item in items)
    if not right:
        raise DataError(f"{path}: names no queries; expected an object of ids with a list of ids each.")
    return right
