"""A caption as a small tree of texts: the whole, its sentences, the phrases of its boxes and other phrases in it."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from hypvl.checks import whole_number, whole_number_or_none

Kind: TypeAlias = Literal["caption", "sentence", "box", "phrase"]

#: What a query of each kind weighs in the loss. The caption is the root, which lies under nothing.
WEIGHTS: dict[Kind, float] = {"caption": 0.0, "sentence": 1.0, "box": 0.75, "phrase": 0.5}

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|[\r\n]+")
_PHRASE_END = re.compile(
    r"[,;:()]|\b(?:and|with|near|beside|behind|under|above|around|next\s+to)\b", re.IGNORECASE
)
_WORD = re.compile(r"\w+(?:[-'\u2019.]\w+)*")
_FEWEST_CHARACTERS = 3
_MOST_SENTENCES = 5
_FEWEST_WORDS, _MOST_WORDS = 2, 8  # of a phrase that is taken whole
_WINDOW, _STEP = 6, 4  # words of the pieces of a longer one, and from one to the next


class Query(NamedTuple):
    """One text of the tree."""

    text: str
    kind: Kind
    weight: float  # >= 0
    parent: int  # place of the more general text among the queries, before this one; -1 = none
    box: int  # place among the box phrases, for the kind "box"; -1 for others


def query_hierarchy(
    caption: str, box_texts: Sequence[str] = (), *, max_queries: int | None = 6, max_phrases: int = 30
) -> list[Query]:
    """The queries of a caption: itself, its sentences, the phrases of its boxes, and further phrases found in it.

    Sentences end after ``.!?;`` and white space, or at the end of a line; the first 5 are taken. Further phrases are
    what stands between ``,;:()`` and words such as "and", "with", "near": 2 to 8 words as they are, more in pieces of 6
    words, one every 4. Texts of fewer than 3 characters are left out, and those that have come before, ignoring case.

    Args:
        caption: The text of the whole image, the root: its weight is 0.
        box_texts: Phrases of its boxes; their parent is the caption, their weight 0.75.
        max_queries: The first so many are kept; None = all.
        max_phrases: Most phrases, those of boxes included; further phrases have the first sentence as parent (the
            caption, where there is none) and the weight 0.5, sentences the caption and 1.

    Returns:
        The queries in that order. Every parent stands before its children, and is never the query itself.

    Raises:
        ValueError: for a limit below 1 (``max_queries``) or 0 (``max_phrases``).

    Source: Hyper3-CLIP (arXiv 2608.29313).
    Differs: where the caption is left out as too short, its queries have no parent. As published their parent is then
        the first of them, and that one is its own.

    Example:
        >>> [query.text for query in query_hierarchy("A dog on grass. It sleeps.", ["a dog"])]
        ['A dog on grass. It sleeps.', 'A dog on grass.', 'It sleeps.', 'a dog', 'A dog on grass It sleeps']
    """
    whole_number_or_none("max_queries", max_queries, least=1)
    whole_number("max_phrases", max_phrases, least=0)
    queries: list[Query] = []
    seen: set[str] = set()

    def add(text: str, kind: Kind, parent: int, box: int = -1) -> bool:
        text = " ".join(text.split())
        if len(text) < _FEWEST_CHARACTERS or text.casefold() in seen:
            return False
        seen.add(text.casefold())
        queries.append(Query(text, kind, WEIGHTS[kind], parent, box))
        return True

    root = 0 if add(caption, "caption", -1) else -1
    sentences = [part for part in _SENTENCE_END.split(caption) if part.strip()][:_MOST_SENTENCES]
    added = [add(sentence, "sentence", root) for sentence in sentences]
    above = root + 1 if any(added) else root  # sentences come right after the caption
    left = max_phrases
    for box, text in enumerate(box_texts):
        if left > 0:
            left -= add(text, "box", root, box)
    for text in _phrases(caption):
        if left > 0:
            left -= add(text, "phrase", above)
    return queries[:max_queries]


def _phrases(caption: str) -> list[str]:
    """The phrases that a caption is made of."""
    phrases = []
    for part in _PHRASE_END.split(caption):
        words = _WORD.findall(part)
        if len(words) > _MOST_WORDS:
            starts = range(0, len(words) - _FEWEST_WORDS + 1, _STEP)
            phrases += [" ".join(words[start : start + _WINDOW]) for start in starts]
        elif len(words) >= _FEWEST_WORDS:
            phrases.append(" ".join(words))
    return phrases
