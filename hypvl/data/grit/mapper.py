"""Processed GRIT shards: an image with its caption, and boxes cut out of it with the phrases they show.

The members of a sample, written by :mod:`hypvl.data.grit.prepare`::

    <key>.child.jpg  <key>.child.txt          the whole image and its caption
    <key>.numparents.txt                      how many boxes, N
    <key>.parent000.jpg  <key>.parent000.txt  the first of N boxes and its phrase
    <key>.parent000_box.txt                   where it is: left, top, right, bottom in fractions; may be absent
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hypvl.allowlist import configurable
from hypvl.checks import natural_number, one_of
from hypvl.data.boxes import Boxes, Corners, box_fields, check_boxes, choose_boxes
from hypvl.data.mappers import find_member, read_text
from hypvl.data.sample import BadSample

CHILD_IMAGE, CHILD_TEXT, NUM_PARENTS = "child.jpg", "child.txt", "numparents.txt"


def parent_members(number: int) -> tuple[str, str]:
    """Names of the image and the phrase of box ``number``, counted from 0."""
    return f"parent{number:03d}.jpg", f"parent{number:03d}.txt"


def corners_member(number: int) -> str:
    """Name of the place of box ``number``: left, top, right and bottom, in fractions of the image."""
    return f"parent{number:03d}_box.txt"


@configurable("dataset")
@dataclass(frozen=True)
class GritMapper:
    """``image``, ``caption``, and boxes with their phrases, ``box_image`` and ``box_text``.

    Args:
        boxes: ``"one"``, drawn evenly from the sample's; ``"first"`` or ``"random"``, at most ``max_boxes``; or
            ``"all"``. With more than one there are ``box_owner`` and ``box_corners`` too, see
            :func:`hypvl.data.boxes.box_fields`, and a sample may have no box.
        max_boxes: Most boxes for ``"first"`` and ``"random"``, at least 1; None for the others.

    Raises:
        ValueError: for another choice, or a number that does not go with it.

    Source: Pal et al., HyCoCLIP (arXiv 2410.06912), section 4; Peng et al., Kosmos-2 (arXiv 2306.14824): GRIT itself.
    """

    boxes: Boxes = "one"
    max_boxes: int | None = None

    def __post_init__(self) -> None:
        one_of("boxes", self.boxes, Boxes)
        check_boxes(self.boxes, self.max_boxes)

    def __repr__(self) -> str:
        # Part of the data's fingerprint: one box is not named, so that older runs resume.
        if self.boxes == "one":
            return "GritMapper()"
        return f"GritMapper(boxes={self.boxes!r}, max_boxes={self.max_boxes})"

    def __call__(
        self, key: str, members: Mapping[str, bytes], generator: np.random.Generator
    ) -> dict[str, Any]:
        """Raises BadSample when a member is missing, empty or broken, or there is no box to draw one from."""
        count = _count(key, members, least=1 if self.boxes == "one" else 0)
        numbers = choose_boxes(count, boxes=self.boxes, max_boxes=self.max_boxes, generator=generator)
        names = [parent_members(number) for number in numbers]
        fields = {"image": _image(key, members, CHILD_IMAGE), "caption": _text(key, members, CHILD_TEXT)}
        return fields | box_fields(
            [_image(key, members, image) for image, _ in names],
            [_text(key, members, phrase) for _, phrase in names],
            [None if self.boxes == "one" else _corners(key, members, number) for number in numbers],
            boxes=self.boxes,
        )


def _corners(key: str, members: Mapping[str, bytes], number: int) -> Corners | None:
    """Where a box is; None where the TAR does not say."""
    name = corners_member(number)
    if name not in members:
        return None
    text = _text(key, members, name)
    try:
        left, top, right, bottom = (float(value) for value in text.split())
        if not 0 <= left < right <= 1 or not 0 <= top < bottom <= 1:
            raise ValueError("corners")
    except ValueError as error:
        raise BadSample(
            key, f"{name} is {text[:40]!r}, expected left, top, right and bottom in fractions of the image"
        ) from error
    return left, top, right, bottom


def _count(key: str, members: Mapping[str, bytes], *, least: int) -> int:
    text = _text(key, members, NUM_PARENTS)
    number = natural_number(text)
    if number is None or len(text) > 9:
        raise BadSample(key, f"{NUM_PARENTS} is {text[:20]!r}, expected a number")
    if number < least:
        raise BadSample(key, f"no boxes, {NUM_PARENTS} is {text}")
    return number


def _text(key: str, members: Mapping[str, bytes], name: str) -> str:
    text = read_text(key, members, name)
    if not text:
        raise BadSample(key, f"empty {name}")
    return text


def _image(key: str, members: Mapping[str, bytes], name: str) -> bytes:
    if not (image := find_member(key, members, name)):
        raise BadSample(key, f"empty {name}")
    return image
