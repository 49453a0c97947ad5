"""One raw GRIT sample: its boxes cut out of the image, their phrases out of the caption.

Raw, as img2dataset writes it: ``jpg`` + ``json`` with ``caption`` and the lists ``noun_chunks`` and ``ref_exps`` of
``[start, end, x1, y1, x2, y2, score]``: where the phrase stands in the caption, the box in fractions of the image.
"""

import dataclasses
import io
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from hypvl.data.grit.mapper import CHILD_IMAGE, CHILD_TEXT, NUM_PARENTS, corners_member, parent_members
from hypvl.data.mappers import find_image, read_json
from hypvl.data.sample import BadSample
from hypvl.errors import DataError
from hypvl.io.images import ImageError, decode_image, to_pil

_JPEG_QUALITY = 95

#: (left, top, right, bottom) in pixels, right and bottom excluded
Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class GritSettings:
    """What the processed bytes depend on, beside the raw ones; other values are a DataError."""

    #: Which boxes: of ``noun_chunks`` ("a dog"), of ``ref_exps`` ("a dog in a field"), or of both.
    phrases: Literal["both", "noun_chunks", "ref_exps"] = "both"
    min_size: int = 16  # pixels that the shorter side of a box must have
    min_score: float = 0.0  # least score of a box, in [0, 1]

    def __post_init__(self) -> None:
        if self.phrases not in ("both", "noun_chunks", "ref_exps"):
            raise DataError(f"phrases: got {self.phrases!r}; expected both, noun_chunks or ref_exps.")
        if self.min_size < 1:
            raise DataError(f"min_size: got {self.min_size}; expected 1 pixel or more.")
        if not 0 <= self.min_score <= 1:
            raise DataError(f"min_score: got {self.min_score}; expected 0 to 1.")

    @property
    def lists(self) -> tuple[str, ...]:
        """The lists of the raw ``json`` that are read, in this order."""
        return ("noun_chunks", "ref_exps") if self.phrases == "both" else (self.phrases,)


class DroppedBoxError(Exception):
    """This box is left out; the text says why."""


def convert_sample(
    key: str, members: Mapping[str, bytes], settings: GritSettings
) -> tuple[list[tuple[str, bytes]], Counter[str]]:
    """A raw sample as the members of a processed one.

    The image stays as it is, byte by byte (other formats become JPEG); boxes are cut out of it upright, as
    training sees it. The same words in the same box come once. ``key`` names the sample in errors.

    Returns:
        Names (without the key) and contents in order, empty when no box is left; and reason -> boxes left out.

    Raises:
        BadSample: when image, caption or box lists are missing or broken.
    """
    notes = read_json(key, members)
    caption = _caption(key, notes)
    entries = _entries(key, notes, settings)
    data = find_image(key, members)
    try:
        image = decode_image(data)  # (3, H, W)
    except ImageError as error:
        raise BadSample(key, str(error)) from error
    _check_shape(key, notes, height=image.shape[-2], width=image.shape[-1])
    dropped: Counter[str] = Counter()
    phrases: dict[tuple[str, Box], str] = {}  # in order; ignoring case
    for entry in entries:
        try:
            phrase, box = read_box(entry, caption, image.shape[-2], image.shape[-1], settings)
            if (phrase.casefold(), box) in phrases:
                raise DroppedBoxError("the same phrase and box again")
            phrases[phrase.casefold(), box] = phrase
        except DroppedBoxError as error:
            dropped[str(error)] += 1
    if not phrases:
        return [], dropped
    whole = data if data[:3] == b"\xff\xd8\xff" else encode_jpeg(image)
    written = [
        (CHILD_IMAGE, whole), (CHILD_TEXT, caption.strip().encode()), (NUM_PARENTS, str(len(phrases)).encode()),
    ]  # fmt: skip
    for number, ((_, (left, top, right, bottom)), phrase) in enumerate(phrases.items()):
        image_name, phrase_name = parent_members(number)
        written.append((image_name, encode_jpeg(image[:, top:bottom, left:right])))
        written.append((phrase_name, phrase.encode()))
        height, width = image.shape[-2:]
        corners = (left / width, top / height, right / width, bottom / height)
        written.append((corners_member(number), " ".join(f"{value:.6f}" for value in corners).encode()))
    return written, dropped


def read_box(entry: Any, caption: str, height: int, width: int, settings: GritSettings) -> tuple[str, Box]:
    """Phrase and box, with every pixel it touches, of one entry for an image of ``height`` x ``width`` pixels.

    Spaces in the phrase are joined, the box is clipped to the image. Raises DroppedBoxError for no phrase, or for no
    box or one that is too small.
    """
    numbers = isinstance(entry, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in entry
    )
    if not numbers or len(entry) != 7:
        raise DroppedBoxError("not seven numbers")
    start, end, *fractions, score = entry
    if not (start == int(start) and end == int(end) and 0 <= start < end <= len(caption)):
        raise DroppedBoxError("phrase outside the caption")
    phrase = " ".join(caption[int(start) : int(end)].split())
    if not phrase:
        raise DroppedBoxError("empty phrase")
    if score < settings.min_score:
        raise DroppedBoxError(f"score below {settings.min_score:g}")
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in fractions)
    if not (x1 < x2 and y1 < y2):
        raise DroppedBoxError("box without an area")
    box = (math.floor(x1 * width), math.floor(y1 * height), math.ceil(x2 * width), math.ceil(y2 * height))
    if min(box[2] - box[0], box[3] - box[1]) < settings.min_size:
        raise DroppedBoxError(f"smaller than {settings.min_size} pixels")
    return phrase, box


def encode_jpeg(image: Tensor) -> bytes:
    """uint8 (3, h, w) as a JPEG file; the same bytes for the same pixels."""
    out = io.BytesIO()
    to_pil(image).save(out, format="JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()


def _caption(key: str, notes: Mapping[str, Any]) -> str:
    caption = notes.get("caption")
    if not isinstance(caption, str):
        raise BadSample(key, "missing caption" if caption is None else f"caption is {type(caption).__name__}")
    if not caption.strip():
        raise BadSample(key, "empty caption")
    try:
        caption.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON can hold
        raise BadSample(key, f"caption is not text ({error.reason})") from error
    return caption


def _check_shape(key: str, notes: Mapping[str, Any], *, height: int, width: int) -> None:
    """Boxes are fractions of the original: of a padded or cropped image they would show something else."""
    wide, high = notes.get("original_width"), notes.get("original_height")
    if not (isinstance(wide, int) and isinstance(high, int) and wide > 0 and high > 0):
        return
    ratio = math.log(wide / high)
    # rounding to whole pixels; lying images may have been turned upright
    slack = 0.02 + 1.5 / min(height, width)
    if min(abs(ratio - math.log(width / height)), abs(ratio - math.log(height / width))) > slack:
        raise BadSample(
            key,
            "the image was padded or cropped, so that its boxes do not fit; see img2dataset's --resize_mode "
            f"keep_ratio ({wide} x {high} before, {width} x {height} here)",
        )


def _entries(key: str, notes: Mapping[str, Any], settings: GritSettings) -> list[Any]:
    lists = {name: notes.get(name) for name in settings.lists}
    if all(value is None for value in lists.values()):
        raise BadSample(key, f"json has no {' or '.join(lists)}; see img2dataset's --save_additional_columns")
    for name, value in lists.items():
        if value is not None and not isinstance(value, list):
            raise BadSample(key, f"{name} is {type(value).__name__}, expected a list")
    return [entry for value in lists.values() for entry in value or ()]
