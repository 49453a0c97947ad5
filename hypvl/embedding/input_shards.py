"""What is encoded as one shard: a TAR, a block of the images of a folder, a block of the texts of a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hypvl.data.shards import shard_names
from hypvl.datasets.images import Images
from hypvl.datasets.protocol import ImageSource
from hypvl.datasets.user_inputs import Texts, tar_texts, text_file
from hypvl.embedding.protocol import Modality
from hypvl.embedding.store_files import NO_STAMP, stamp
from hypvl.io.redact import redact_url


@dataclass(frozen=True)
class InputShard:
    """Images or texts, one of which can be opened, whose embeddings become one shard."""

    name: str
    files: Sequence[str]  # when one changes, the shard is made again
    images: Callable[[], ImageSource] | None = None
    texts: Callable[[], Texts] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # how the files are read: plain values

    @property
    def modality(self) -> Modality:
        """Modality of the inputs."""
        return "text" if self.images is None else "image"

    def source(self) -> dict[str, Any]:
        """Its files with their sizes and times, which are stored with the shard."""
        stamps = [stamp(name) for name in self.files]
        files = [redact_url(name) for name in self.files]  # the store shows them
        return {"files": files, "stamps": [None if s == NO_STAMP else list(s) for s in stamps]}


def tar_shards(places: Sequence[str], *, text_key: str | None = None) -> list[InputShard]:
    """A shard for each TAR: its images, or its texts under ``text_key`` (``txt``, ``json.caption``).

    Raises:
        DataError: a TAR is given twice.
    """
    named = zip(shard_names(places), places, strict=True)
    if text_key is None:
        return [InputShard(name, [place], images=partial(Images.from_tars, [place])) for name, place in named]
    read, settings = partial(tar_texts, member=text_key), {"text_key": text_key}
    return [InputShard(name, [place], texts=partial(read, place), settings=settings) for name, place in named]


def image_shards(paths: Sequence[Path], *, size: int) -> list[InputShard]:
    """Shards of ``size`` images, in order."""
    blocks = [paths[start : start + size] for start in range(0, len(paths), size)]
    return [
        InputShard(
            f"{number:05}",
            [str(path) for path in block],
            images=partial(Images.from_files, block),
            settings={"shard_size": size},
        )
        for number, block in enumerate(blocks)
    ]


def text_shards(
    paths: Sequence[str | Path],
    *,
    text_key: str = "caption",
    id_key: str | None = None,
    size: int | None = None,
) -> list[InputShard]:
    """Shards of ``size`` texts of files (tables, JSON Lines, ``.txt``); None: one for each file.

    Raises:
        DataError: a file cannot be read, or is given twice.
    """
    shards = []
    for name, path in zip(shard_names([str(path) for path in paths]), paths, strict=True):
        rows = text_file(path, text_key=text_key, id_key=id_key)
        block = len(rows) if size is None else size
        for start in range(0, len(rows), block):
            stop = min(start + block, len(rows))
            own = name if len(rows) <= block else f"{name}-{start // block:05}"
            settings = {"text_key": text_key, "id_key": id_key, "rows": [start, stop]}
            texts = partial(Texts, rows.texts[start:stop], rows.ids[start:stop])
            shards.append(InputShard(own, [str(path)], texts=texts, settings=settings))
    return shards
