"""Processed GRIT shards: an image with its caption, and boxes cut out of it with the phrases they show.

The members of a sample, written by :mod:`hypvl.data.grit.prepare`::

    <key>.child.jpg  <key>.child.txt          the whole image and its caption
    <key>.numparents.txt                      how many boxes, N
    <key>.parent000.jpg  <key>.parent000.txt  the first of N boxes and its phrase
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hypvl.allowlist import configurable
from hypvl.checks import natural_number
from hypvl.data.mappers import find_member, read_text
from hypvl.data.sample import BadSample

CHILD_IMAGE, CHILD_TEXT, NUM_PARENTS = "child.jpg", "child.txt", "numparents.txt"


def parent_members(number: int) -> tuple[str, str]:
    """Names of the image and the phrase of box ``number``, counted from 0."""
    return f"parent{number:03d}.jpg", f"parent{number:03d}.txt"


@configurable("dataset")
@dataclass(frozen=True)
class GritMapper:
    """``image``, ``caption``, ``box_image`` and ``box_text``: one box with its phrase, drawn evenly from the sample's.

    Source: Pal et al., HyCoCLIP (arXiv 2410.06912), section 4; Peng et al., Kosmos-2 (arXiv 2306.14824): GRIT itself.
    """

    def __call__(
        self, key: str, members: Mapping[str, bytes], generator: np.random.Generator
    ) -> dict[str, Any]:
        """Raises BadSample when a member is missing, empty or broken, or there is no box."""
        number = int(generator.integers(_count(key, members)))
        image, phrase = parent_members(number)
        return {
            "image": _image(key, members, CHILD_IMAGE),
            "caption": _text(key, members, CHILD_TEXT),
            "box_image": _image(key, members, image),
            "box_text": _text(key, members, phrase),
        }


def _count(key: str, members: Mapping[str, bytes]) -> int:
    text = _text(key, members, NUM_PARENTS)
    number = natural_number(text)
    if number is None or len(text) > 9:
        raise BadSample(key, f"{NUM_PARENTS} is {text[:20]!r}, expected a number")
    if number < 1:
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
