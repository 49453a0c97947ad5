"""Texts alone, one a line of a file: for objectives that compare texts with texts."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from hypvl.allowlist import configurable
from hypvl.data.augment import InModalAugment
from hypvl.data.sample import BadSample, ImageTransform, PairReader, Sample, Tokenize, caption_text
from hypvl.errors import DataError
from hypvl.io.files import open_regular
from hypvl.io.images import MAX_PIXELS

_LONGEST = 2**20  # bytes of a line; longer ones are bad samples
_BLOCK = 2**24


@configurable("dataset")
@dataclasses.dataclass(eq=False, repr=False)
class TextLines(PairReader):
    """The lines of a UTF-8 text file. Samples have no image: the model needs no image encoder.

    Only the place of each line is kept in memory, 8 bytes a line. Blank lines are bad samples.

    Args:
        path: The file.

    The others: :class:`hypvl.data.sample.PairReader`; no image is read, so those of images are not used.
    """

    path: str | Path
    _: dataclasses.KW_ONLY
    tokenizer: Tokenize | None = None
    image_transform: ImageTransform | None = None
    shuffle_window: int = 65_536
    max_bad_fraction: float = 0.1
    max_pixels: int = MAX_PIXELS
    augment: InModalAugment | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._file = Path(self.path).expanduser()

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self).items() if name != "_bytes"
        }  # each process maps the file

    def prepare(self) -> None:
        """Find the lines. Raises DataError for a file that cannot be read, or is empty."""
        logger.info("{} lines in {}", len(self), self._file)

    def __len__(self) -> int:
        return len(self._index[0]) - 1

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the file's content and what is made of it."""
        return hashlib.sha256((self._index[1] + self.describe()).encode()).hexdigest()

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        """The sample of a line, from 0. Raises BadSample for one that is blank, too long or not UTF-8."""
        image_seed = int(generator.integers(2**63))
        key = f"{self._file.name}/line {row + 1}"
        start, end = (int(place) for place in self._index[0][row : row + 2])
        if end - start > _LONGEST:
            raise BadSample(key, f"has {end - start} bytes, more than {_LONGEST}")
        try:
            text = self._bytes[start:end].tobytes().decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise BadSample(key, f"is not UTF-8 ({error.reason})") from error
        fields = {"caption": caption_text(key, text, "text", generator)}
        return self.finish(key, fields, image_seed=image_seed)

    @functools.cached_property
    def _bytes(self) -> np.ndarray:
        return np.memmap(self._file, dtype=np.uint8, mode="r")

    @functools.cached_property
    def _index(self) -> tuple[np.ndarray, str]:
        """Where each line begins, with the end of the last one, (lines + 1,) int64; and the digest of the file."""
        starts, digest, size = [np.zeros(1, dtype=np.int64)], hashlib.sha256(), 0
        try:
            with open_regular(self._file) as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    breaks = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
                    starts.append(breaks + size + 1)
                    size += len(block)
        except OSError as error:
            raise DataError(f"{self._file}: cannot be read ({error.strerror}); name a text file.") from error
        places = np.concatenate(starts)
        if places[-1] != size:  # the last line has no line break
            places = np.append(places, size)
        if len(places) < 2:
            raise DataError(f"{self._file}: is empty; expected a text in each line.")
        return places, digest.hexdigest()
