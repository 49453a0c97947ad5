"""From the members of a TAR sample to an image and its caption.

A mapper is ``(key, members, generator) -> fields``: ``members`` maps lower-case extensions to bytes; ``fields``
has ``image`` (encoded bytes) and ``caption`` (text), and may have more, see
:func:`hypvl.data.sample.finish_sample`. It draws from the generator only, and raises
:class:`~hypvl.data.sample.BadSample` for what it cannot use.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hypvl.allowlist import configurable
from hypvl.checks import number
from hypvl.data.sample import BadSample, caption_text
from hypvl.io.json_text import parse_json

Mapper = Callable[[str, Mapping[str, bytes], np.random.Generator], dict[str, Any]]
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


@configurable("dataset")
@dataclasses.dataclass(frozen=True)
class RedCapsMapper:
    """``jpg`` + ``json`` with ``caption`` and ``subreddit``.

    With the given probability the caption becomes "<subreddit, in words> : <caption>"; without a subreddit it
    stays as it is.

    Args:
        prefix_probability: In [0, 1].

    Source: Desai et al., RedCaps (arXiv 2111.11431); Desai et al., MERU (arXiv 2304.09172).
    Differs: a sample without a subreddit is used; the published code fails on it.
    """

    prefix_probability: float = 0.5

    def __post_init__(self) -> None:
        number("prefix_probability", self.prefix_probability, least=0, most=1)

    def __call__(
        self, key: str, members: Mapping[str, bytes], generator: np.random.Generator
    ) -> dict[str, Any]:
        """Raises BadSample when image or caption are missing or the JSON is broken."""
        notes = read_json(key, members)
        caption = caption_text(key, notes.get("caption"), "caption", generator)
        subreddit = notes.get("subreddit")
        if isinstance(subreddit, str) and subreddit and generator.random() < self.prefix_probability:
            caption = f"{segment(subreddit)} : {caption}"
        return {"image": find_image(key, members), "caption": caption}


@configurable("dataset")
@dataclasses.dataclass(frozen=True)
class GenericMapper:
    """Any of ``jpg jpeg png webp`` + ``txt`` or ``json`` (CC3M, CC12M, LAION as img2dataset writes them).

    Args:
        caption_key: Take the caption from this key of the ``json`` (a list: one of it at random). None: from
            ``txt`` where there is one, else from the key ``caption`` of the ``json``.
    """

    caption_key: str | None = None

    def __call__(
        self, key: str, members: Mapping[str, bytes], generator: np.random.Generator
    ) -> dict[str, Any]:
        """Raises BadSample when image or caption are missing or broken."""
        name = "caption" if self.caption_key is None else self.caption_key
        if self.caption_key is not None or "txt" not in members:
            find_member(key, members, "json", what="txt or json" if self.caption_key is None else None)
            value = read_json(key, members).get(name)
        else:
            value = read_text(key, members, "txt")
        return {
            "image": find_image(key, members),
            "caption": caption_text(key, value, name, generator),
        }


def find_member(key: str, members: Mapping[str, bytes], *names: str, what: str | None = None) -> bytes:
    """The first of these members there. Raises BadSample, naming ``what`` is missing, when there is none."""
    for name in names:
        if name in members:
            return members[name]
    raise BadSample(key, f"missing {what or names[0]} (it has {', '.join(sorted(members)) or 'nothing'})")


def find_image(key: str, members: Mapping[str, bytes]) -> bytes:
    """The first of ``jpg jpeg png webp`` there. Raises BadSample when there is none."""
    return find_member(key, members, *IMAGE_EXTENSIONS, what="image")


def read_text(key: str, members: Mapping[str, bytes], name: str) -> str:
    """A text without the blanks around it. Raises BadSample when it is missing or not UTF-8."""
    try:
        return find_member(key, members, name).decode().strip()
    except UnicodeDecodeError as error:
        raise BadSample(key, f"{name} is not UTF-8 ({error.reason})") from error


def read_json(key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
    """The ``json`` member. Raises BadSample when it is missing, broken or no object."""
    data = find_member(key, members, "json")
    try:
        notes = parse_json(data)
    except ValueError as error:
        raise BadSample(key, f"broken json ({error})") from error
    if not isinstance(notes, dict):
        raise BadSample(key, f"json is a {type(notes).__name__}, expected an object")
    return notes


@functools.lru_cache(maxsize=100_000)
def segment(name: str) -> str:
    """A run-together name in words: "itookapicture" -> "i took a picture"."""
    words = _segmenter()(name)
    return " ".join(words) if words else name.lower()


@functools.cache
def _segmenter() -> Callable[[str], list[str]]:
    import wordsegment  # a second of loading, and only RedCaps needs it

    wordsegment.load()
    return wordsegment.segment
