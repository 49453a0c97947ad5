"""Captions in a wrong order of words: the four shuffles of ARO's order tests.

A caption is first made plain (:func:`plain_caption`); then its words change places, and the spaces and commas
between them stay. Every shuffle is drawn again until the order differs; where no other order exists, there is no text.

Source: Yuksekgonul et al. 2023, "When and why vision-language models behave like bags-of-words" (arXiv 2210.01936),
    section 2.2.
Differs: the published script shuffles the words of the raw caption (tokens of NLTK or spaCy, joined by spaces, so
    that "man's" comes out as "man 's") and makes the text plain afterwards; it draws from a global generator, and
    keeps shuffles that change nothing.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from hypvl.negatives.keyed_random import Draws
from hypvl.negatives.tagging import Word

#: Finds the nouns, adjectives and verbs of each caption.
Tagger: TypeAlias = Callable[[Sequence[str]], list[list[Word]]]
#: The shuffles, in their order in the file.
SHUFFLES = ("nouns_and_adjectives", "all_but_nouns_and_adjectives", "within_trigrams", "trigrams")
_SIGNS = re.compile(r"[.!\"()*#:;~]")
_SLOT = re.compile(r"[^\s,]+")
# Where another order is possible, at least a third of the draws give one: a hundred without one is not chance.
_TRIES = 100


def plain_caption(caption: str, *, max_words: int = 30) -> str:
    """Lower case, without the signs ``. ! " ( ) * # : ; ~`` and double spaces, at most ``max_words`` words."""
    words = _SIGNS.sub(" ", caption.lower()).split()
    return " ".join(words[:max_words])


def shuffles(caption: str, tagged: Iterable[Word], *, seed: int, position: int) -> dict[str, str]:
    """The caption in up to four wrong orders.

    - ``nouns_and_adjectives``: nouns change places with nouns, adjectives with adjectives;
    - ``all_but_nouns_and_adjectives``: all the other words change places;
    - ``within_trigrams``: the words inside of each three in a row;
    - ``trigrams``: the threes.

    Args:
        caption: As :func:`plain_caption` makes it.
        tagged: Its nouns, adjectives and verbs.
        seed: Of the whole set, at least 0.
        position: Of the caption in its set.

    Returns:
        By name of the shuffle; without those that can only give the caption again.
    """
    slots = [match.span() for match in _SLOT.finditer(caption)]
    words = list(tagged)
    kinds = [
        # Both words of a noun of two ("fire truck") are nouns.
        next((word.kind for word in words if word.start < end and start < word.end), "")
        for start, end in slots
    ]
    nouns = [i for i, kind in enumerate(kinds) if kind == "noun"]
    adjectives = [i for i, kind in enumerate(kinds) if kind == "adjective"]
    others = [i for i, kind in enumerate(kinds) if kind not in ("noun", "adjective")]
    threes = [list(range(at, min(at + 3, len(slots)))) for at in range(0, len(slots), 3)]
    orders: tuple[Callable[[Draws], list[int]], ...] = (
        lambda draws: _among(len(slots), (nouns, adjectives), draws),
        lambda draws: _among(len(slots), (others,), draws),
        lambda draws: _among(len(slots), threes, draws),
        lambda draws: [i for three in draws.shuffled(threes) for i in three],
    )
    texts: dict[str, str] = {}
    for decision, (name, order) in enumerate(zip(SHUFFLES, orders, strict=True)):
        draws = Draws(seed, position, decision)
        for _ in range(_TRIES):
            text = _rearranged(caption, slots, order(draws))
            if text != caption:
                texts[name] = text
                break
    return texts


def _among(count: int, sets: Iterable[Sequence[int]], draws: Draws) -> list[int]:
    """An order of ``count`` places in which those of each set change places among themselves."""
    order = list(range(count))
    for places in sets:
        for place, source in zip(places, draws.shuffled(places), strict=True):
            order[place] = source
    return order


def _rearranged(caption: str, slots: Sequence[tuple[int, int]], order: Sequence[int]) -> str:
    """The words in another order, with what stands between them where it was."""
    parts, at = [], 0
    for (start, end), source in zip(slots, order, strict=True):
        parts += [caption[at:start], caption[slice(*slots[source])]]
        at = end
    return "".join([*parts, caption[at:]])
