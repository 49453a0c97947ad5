"""What makes a text a usable negative, whoever proposed it."""

import functools
import re
from collections.abc import Sequence

from hypvl.checks import one_of
from hypvl.negatives.lexicon import Kind, lexicon
from hypvl.negatives.tagging import units_of
from hypvl.negatives.text import normal_form

#: Stands in the published fields where there is no negative.
NO_NEGATIVE = "###"

ONLY_A_MASK = "the text is a mask or empty"
UNCHANGED = "the text says what the caption says"
DUPLICATE = "the text is another negative of the caption"
MENTIONED = "every replacement is in the captions of the image"

_MASKS = re.compile(r"<mask>|\[mask\]|<extra_id_\d+>|###", re.IGNORECASE)


class Taken:
    """The texts that a caption's next negative must differ from: the caption and its negatives so far."""

    def __init__(self, caption: str) -> None:
        self._caption = normal_form(caption)
        self._masks = len(_MASKS.findall(caption))
        self._negatives: set[str] = set()

    def add(self, text: str) -> str | None:
        """Take a text as a negative; or say why it is none, which is then all that happens."""
        masks = _MASKS.findall(text)
        form = normal_form(_MASKS.sub(" ", text) if masks else text)
        if len(masks) > self._masks or not form:
            return ONLY_A_MASK
        if masks:
            form = normal_form(text)
        if form == self._caption:
            return UNCHANGED
        if form in self._negatives:
            return DUPLICATE
        self._negatives.add(form)
        return None


class Mentioned:
    """What the captions of an image talk about: a replacement by one of these words may be true.

    Args:
        captions: The caption itself and the others of its image.
    """

    def __init__(self, captions: Sequence[str]) -> None:
        self._texts: set[str] = set()
        self._heads: dict[Kind, set[str]] = {"noun": set(), "adjective": set(), "verb": set()}
        for caption in captions:
            for text, readings in units_of(caption):
                self._texts.add(text)
                for reading in readings:
                    self._heads[reading.kind].update(sense.head for sense in reading.senses)

    def __call__(self, kind: Kind, replacement: str) -> bool:
        """Whether the word, or one that may be true together with it, is in the captions."""
        one_of("kind", kind, Kind)
        if replacement.lower() in self._texts:
            return True
        return any(
            lexicon().alike(kind, head, said)
            for head in _heads(kind, replacement)
            for said in self._heads[kind]
        )


@functools.lru_cache(maxsize=10_000)
def _heads(kind: Kind, text: str) -> tuple[str, ...]:
    readings = lexicon().readings.get(text.lower(), ())
    return tuple({sense.head for one in readings if one.kind == kind for sense in one.senses})
