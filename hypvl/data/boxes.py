"""Boxes of a training sample: which of them are taken, and how they are cut out of its image."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hypvl.checks import one_of, whole_number
from hypvl.data.sample import BadSample, caption_text

#: Which boxes of a sample are taken: one, drawn evenly; the first or a random few, in order; or all.
Boxes: TypeAlias = Literal["one", "first", "random", "all"]
#: (left, top, right, bottom) in fractions of the width and height of the image, 0 to 1.
Corners: TypeAlias = tuple[float, float, float, float]


def check_boxes(boxes: Boxes, max_boxes: int | None) -> None:
    """ValueError for another choice, or a number of boxes where it means nothing, or none where it is needed."""
    one_of("boxes", boxes, Boxes)
    if boxes in ("first", "random"):
        if max_boxes is None:
            raise ValueError(
                f"max_boxes: got None with boxes={boxes!r}; give the most boxes of a sample, such as 5."
            )
        whole_number("max_boxes", max_boxes, least=1)
    elif max_boxes is not None:
        raise ValueError(
            f"max_boxes: got {max_boxes} with boxes={boxes!r}, which takes no number; leave it at null, or set boxes "
            "to 'first' or 'random'."
        )


def choose_boxes(
    count: int, *, boxes: Boxes, max_boxes: int | None, generator: np.random.Generator
) -> list[int]:
    """Numbers of the boxes that are taken of ``count``, in ascending order; see :data:`Boxes`.

    Args:
        count: Boxes of the sample; at least 1 for ``"one"``.
        max_boxes: Most boxes for ``"first"`` and ``"random"``.
        generator: Of the sample; what is drawn depends on its seed and position alone.

    Raises:
        ValueError: as :func:`check_boxes`.

    Source: ``"one"``: HyCoCLIP (arXiv 2410.06912); ``"first"``, of 5: UNCHA (arXiv 2603.22042); ``"random"``, of 5:
        Hyper3-CLIP (arXiv 2608.29313).
    """
    check_boxes(boxes, max_boxes)
    if boxes == "one":
        return [int(generator.integers(count))]
    if boxes == "all" or max_boxes is None or count <= max_boxes:
        return list(range(count))
    if boxes == "first":
        return list(range(max_boxes))
    return sorted(generator.choice(count, max_boxes, replace=False).tolist())


def box_fields(
    images: Sequence[bytes | Tensor], texts: Sequence[str], corners: Sequence[Corners | None], *, boxes: Boxes
) -> dict[str, Any]:
    """Fields of a sample for the boxes that were taken, for :func:`~hypvl.data.sample.finish_sample`.

    ``box_image`` and ``box_text``, of ``"one"`` box as they are. Otherwise they are lists, and ``box_owner`` (M,) says
    so: 0 for every box, as they all belong to this sample. ``box_corners`` (M, 4) float32 are NaN where not known.
    """
    if one_of("boxes", boxes, Boxes) == "one":
        return {"box_image": images[0], "box_text": texts[0]}
    unknown = (math.nan,) * 4
    rows = [unknown if box is None else box for box in corners]
    return {
        "box_image": list(images),
        "box_text": list(texts),
        "box_owner": torch.zeros(len(images), dtype=torch.int64),
        "box_corners": torch.tensor(rows, dtype=torch.float32).reshape(-1, 4),
    }


def read_box(key: str, boxes: Any, number: int, generator: np.random.Generator) -> tuple[Corners, str]:
    """Corners and phrase of one of a list of ``{"box": [left, top, right, bottom], "phrase": ...}``.

    Raises:
        BadSample: where it is no such entry, or its corners are not in order within the image.
    """
    try:
        left, top, right, bottom = (float(value) for value in boxes[number]["box"])
        phrase = boxes[number]["phrase"]
        if not 0 <= left < right <= 1 or not 0 <= top < bottom <= 1:
            raise ValueError("corners")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadSample(key, "boxes is not a list of {box: [left, top, right, bottom], phrase}") from error
    return (left, top, right, bottom), caption_text(key, phrase, "phrase", generator)


def cut_out(image: Tensor, corners: Corners) -> Tensor:
    """The part of an image (3, H, W) inside a box, every pixel that it touches, (3, h, w)."""
    height, width = image.shape[-2:]
    left, top, right, bottom = (
        share * side for share, side in zip(corners, (width, height) * 2, strict=True)
    )
    return image[:, math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)]


def boxes_of_row(
    key: str,
    row: Mapping[str, Any],
    image: Tensor,
    *,
    boxes: Boxes,
    max_boxes: int | None,
    generator: np.random.Generator,
) -> dict[str, Any]:
    """:func:`box_fields` of a row ``{"boxes": [{"box": [left, top, right, bottom], "phrase": ...}]}``.

    A row without boxes has none, where more than one may be taken.

    Raises:
        BadSample: for ``"one"`` of no boxes, or an entry that cannot be used.
    """
    one_of("boxes", boxes, Boxes)
    entries = row.get("boxes") or []
    if not isinstance(entries, list):
        raise BadSample(key, f"boxes is {type(entries).__name__}, expected a list")
    if boxes == "one" and not entries:
        raise BadSample(key, "no boxes")
    chosen = choose_boxes(len(entries), boxes=boxes, max_boxes=max_boxes, generator=generator)
    read = [read_box(key, entries, number, generator) for number in chosen]
    images = [cut_out(image, corners) for corners, _ in read]
    return box_fields(images, [phrase for _, phrase in read], [corners for corners, _ in read], boxes=boxes)
