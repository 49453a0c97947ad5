"""ShareGPT4V: images with long captions, listed in one JSON file in the layout of LLaVA."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from loguru import logger

from hypvl.allowlist import configurable
from hypvl.checks import one_of, whole_number
from hypvl.data.augment import InModalAugment
from hypvl.data.sample import BadSample, ImageTransform, PairReader, Sample, Tokenize, caption_text
from hypvl.data.storage import FileHandles
from hypvl.errors import DataError
from hypvl.io.files import open_regular, path_below, read_regular
from hypvl.io.images import MAX_IMAGE_BYTES, MAX_PIXELS
from hypvl.io.json_text import JsonList, parse_json

Split: TypeAlias = Literal["train", "validation"]


@configurable("dataset")
@dataclasses.dataclass(eq=False, repr=False)
class ShareGPT4V(PairReader):
    """The samples of a ShareGPT4V list, with the whole caption (``text``) and a short one (``short_text``).

    The file is a list of ``{"id", "image", "conversations": [{"from", "value"}, {"from", "value"}]}``; ``image`` is a
    path below ``images_root``. The caption is the second turn's value with line breaks as blanks; the short caption
    is what stands before its first ``". "`` (the period is lost, as published), or the whole where there is none.

    Only the place of each entry in the file is kept in memory (16 bytes each); the file is read through once.

    Args:
        path: The JSON list (``share-captioner_coco_lcs_sam_1246k_1107.json``, or a ``..._nocolors.json``).
        tokenizer: Turns captions into token ids; the published recipes use 248 of them.
        images_root: Folder that ``image`` starts from and may not leave; None: ``data`` in the folder of the list.
        split: ``"validation"`` = the first ``validation_entries`` of the list, ``"train"`` = the others.
        subset: Only entries whose ``image`` holds this text, such as ``"coco"``, ``"llava"`` or ``"sam"``, of the
            split; None = all.
        validation_entries: Entries of the validation split, before ``subset`` is applied.

    The others: :class:`hypvl.data.sample.PairReader`.

    Source: Chen et al. 2023 (arXiv 2311.12793); split and short captions as Long-CLIP (arXiv 2403.15378) and I0T
        (arXiv 2412.14384).
    """

    path: str | Path
    _: dataclasses.KW_ONLY
    image_transform: ImageTransform
    tokenizer: Tokenize | None = None
    images_root: str | Path | None = None
    split: Split = "train"
    subset: str | None = None
    validation_entries: int = 1000
    shuffle_window: int = 4000
    max_bad_fraction: float = 0.1
    max_pixels: int = MAX_PIXELS
    augment: InModalAugment | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("split", self.split, Split)
        whole_number("validation_entries", self.validation_entries, least=0)
        self._file = Path(self.path).expanduser()
        root = self._file.parent / "data" if self.images_root is None else self.images_root
        self._root = Path(root).expanduser()
        self._handles = FileHandles(limit=1)

    def prepare(self) -> None:
        """Check the list. Raises DataError."""
        logger.info("{} entries ({}, subset {}) in {}", len(self), self.split, self.subset, self._file)

    def __len__(self) -> int:
        return len(self._scan[0])

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the file's content and what is made of it."""
        settings = (self.split, self.subset, self.validation_entries, self.image_transform, self.max_pixels)
        return hashlib.sha256((self._scan[1] + self.describe(*settings)).encode()).hexdigest()

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        """The sample of a row, in [0, len). Raises BadSample when it cannot be used."""
        image_seed = int(generator.integers(2**63))
        key = f"{self._file.name}/{self.split} {row}"
        start, end = (int(place) for place in self._scan[0][row])
        try:
            entry = parse_json(self._handles.read(self._file, start, end - start))
        except (OSError, ValueError) as error:
            raise BadSample(key, f"broken entry ({error})") from error
        caption = caption_text(key, _caption(entry), "conversations[1].value", generator)
        caption = caption.replace("\n", " ")
        image = entry.get("image")
        if not isinstance(image, str) or not image:
            raise BadSample(key, "missing image")
        try:
            data = read_regular(path_below(self._root, image), max_bytes=MAX_IMAGE_BYTES)
        except (OSError, ValueError) as error:
            raise BadSample(key, f"cannot read {self._root / image} ({error})") from error
        fields = {"image": data, "caption": caption, "short_text": short_caption(caption)}
        return self.finish(f"{key} ({image})", fields, image_seed=image_seed)

    @functools.cached_property
    def _scan(self) -> tuple[np.ndarray, str]:
        """(start and end of each entry of the split and subset, (N, 2) int64; hash of the whole file)."""
        places: list[tuple[int, int]] = []
        count = 0
        try:
            with open_regular(self._file) as file:
                entries = JsonList(file, self._file)
                for start, end, entry in entries:
                    count += 1
                    if (count <= self.validation_entries) != (self.split == "validation"):
                        continue
                    if self.subset is None or self.subset in _image_of(entry):
                        places.append((start, end))
        except OSError as error:
            raise DataError(
                f"{self._file}: cannot be read ({error.strerror}); check dataset.path."
            ) from error
        if not places:
            raise DataError(
                f"{self._file}: none of its {count} entries is of split {self.split!r} with {self.subset!r} in its "
                "image; check dataset.split, dataset.subset and dataset.validation_entries."
            )
        return np.asarray(places, dtype=np.int64), entries.hash.hexdigest()

    def __repr__(self) -> str:
        return f"ShareGPT4V({str(self._file)!r}, split={self.split!r}, subset={self.subset!r})"


def short_caption(caption: str) -> str:
    """The text before the first ``". "``, without that period; all of it where there is none, or nothing before it."""
    first = caption.split(". ", 1)[0]
    return first if first.strip() else caption


def _caption(entry: Any) -> Any:
    """The value of the second turn, or None where there is none."""
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    turn = turns[1] if isinstance(turns, list) and len(turns) > 1 else None
    return turn.get("value") if isinstance(turn, dict) else None


def _image_of(entry: Any) -> str:
    """The path of the image, the empty text where there is none."""
    image = entry.get("image") if isinstance(entry, dict) else None
    return image if isinstance(image, str) else ""
