"""Relation negatives: two nouns change places, or a relation becomes its opposite."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Literal, NamedTuple, TypeAlias

from hypvl.checks import one_of
from hypvl.negatives.keyed_random import Draws
from hypvl.negatives.lexicon import Opposite, grammar, lexicon, relations
from hypvl.negatives.tagging import Word
from hypvl.negatives.text import Edit, Token, apply_edits, tokenize

#: "swap" as published, "opposite" (left of -> right of), or "either": a draw decides which is tried first.
RelationMethod: TypeAlias = Literal["swap", "opposite", "either"]
#: (lemma, form) -> the noun in that form, or None
Inflect: TypeAlias = Callable[[str, str], str | None]

ALIKE = "its nouns are alike"
SYMMETRIC = "its relation reads the same both ways"
TOO_FEW = "fewer than two known nouns"
NO_RELATION = "no known relation"
NO_FORM = "its nouns have no form for the other place"
_NOUNS_TRIED = 4
_COUNTED = ("singular", "plural")


class Proposal(NamedTuple):
    """A text, or the reason why there is none."""

    text: str | None
    reason: str


def relation_negatives(
    caption: str, words: Sequence[Word], inflect: Inflect, draws: Draws, method: RelationMethod = "either"
) -> Iterator[Proposal]:
    """Captions with a false relation, the preferred one first; or the reasons why there is none: at least one proposal.

    ``words`` are the caption's nouns, adjectives and verbs in order; ``draws`` decide the order of the proposals.
    """
    one_of("method", method, RelationMethod)
    swap_first = method == "swap" or (method == "either" and draws.below(2) == 0)
    if swap_first:
        yield from swap_nouns(caption, words, inflect)
    if method != "swap":
        for text in opposite_relations(caption, words, draws):
            yield Proposal(text, "")
    if method == "either" and not swap_first:
        yield from swap_nouns(caption, words, inflect)
    if method == "opposite":
        yield Proposal(None, NO_RELATION)


def swap_nouns(caption: str, words: Sequence[Word], inflect: Inflect) -> Iterator[Proposal]:
    """Two nouns change places: the first two where that makes a false caption, else two later ones.

    Each place keeps its number: "a woman with two dogs" -> "a dog with two women". Nouns that differ in more
    than number (water has no plural) move with their determiners and adjectives. Left alone are equal or alike
    nouns, a measure and what it measures (a plate of food), and pairs whose relation is symmetric (a dog and a
    cat), unless an adjective or a number then belongs to the other one (a black dog and a cat).

    Source: the relation negatives of CE-CLIP (arXiv 2306.08832).
    Differs: two nouns suffice; places are exact; equal nouns are refused; number and articles stay right.
    """
    tokens = tokenize(caption)
    nouns = [word for word in words if word.kind == "noun"][:_NOUNS_TRIED]
    if len(nouns) < 2:
        yield Proposal(None, TOO_FEW)
    for first, second in sorted(combinations(range(len(nouns)), 2), key=lambda pair: pair[1] - pair[0]):
        a, b = nouns[first], nouns[second]
        if _are_alike(a, b):
            yield Proposal(None, ALIKE)
        elif _is_symmetric(a, b, words, tokens):
            yield Proposal(None, SYMMETRIC)
        else:
            edits = _exchange(caption, a, b, words, tokens, inflect)
            text = None if edits is None else apply_edits(caption, edits)
            yield Proposal(text, NO_FORM)


def _are_alike(a: Word, b: Word) -> bool:
    if a.lemma == b.lemma:
        return True
    return a.sense is not None and b.sense is not None and lexicon().alike("noun", a.sense.head, b.sense.head)


def _is_symmetric(a: Word, b: Word, words: Sequence[Word], tokens: Sequence[Token]) -> bool:
    """Whether the caption stays true, or stops making sense, when the two change places."""
    between = [token for token in tokens if a.end <= token.start < b.start]
    if [token.lower for token in between[:1]] == ["of"]:
        return True
    described = {word.start for word in words if word.kind == "adjective"}
    start = _phrase_start(b, words, tokens)
    rest = [token for token in between if token.start < start]
    if any(token.lower not in relations().symmetric for token in rest):
        return False
    own = _phrase_start(a, words, tokens)
    modified = any(own <= at < a.start or start <= at < b.start for at in described)
    return not modified and a.form == b.form


def _phrase_start(noun: Word, words: Sequence[Word], tokens: Sequence[Token]) -> int:
    """Where the noun's determiners and adjectives begin."""
    adjectives = {word.start for word in words if word.kind == "adjective"}
    start = noun.start
    for token in reversed([token for token in tokens if token.end <= noun.start]):
        if token.lower not in grammar().determiners and token.start not in adjectives:
            break
        start = token.start
    return start


def _exchange(
    caption: str, a: Word, b: Word, words: Sequence[Word], tokens: Sequence[Token], inflect: Inflect
) -> list[Edit] | None:
    if a.form == b.form:
        return [
            Edit(a.start, a.end, _moved(caption, b.start, b.end)),
            Edit(b.start, b.end, _moved(caption, a.start, a.end)),
        ]
    if a.form in _COUNTED and b.form in _COUNTED:
        new_a, new_b = inflect(b.lemma, a.form), inflect(a.lemma, b.form)
        if new_a is None or new_b is None:
            return None
        return [Edit(a.start, a.end, new_a), Edit(b.start, b.end, new_b)]
    from_a, from_b = _phrase_start(a, words, tokens), _phrase_start(b, words, tokens)
    if not (_begins(from_a, words, tokens) and _begins(from_b, words, tokens)):
        return None
    return [
        Edit(from_a, a.end, _moved(caption, from_b, b.end)),
        Edit(from_b, b.end, _moved(caption, from_a, a.end)),
    ]


def _begins(start: int, words: Sequence[Word], tokens: Sequence[Token]) -> bool:
    """Whether a noun phrase surely begins there: after a preposition, a verb, or nothing."""
    before = [token for token in tokens if token.end <= start]
    if not before or before[-1].lower in grammar().prepositions | grammar().be | grammar().have:
        return True
    return any(word.kind == "verb" and word.end == before[-1].end for word in words)


def _moved(caption: str, start: int, end: int) -> str:
    """The text of a place, without the capital that only its place gave it."""
    text = caption[start:end]
    starts_sentence = not caption[:start].strip() or caption[:start].rstrip()[-1] in ".!?"
    return text[:1].lower() + text[1:] if starts_sentence else text


def opposite_relations(caption: str, words: Sequence[Word], draws: Draws) -> Iterator[str]:
    """One relation becomes its opposite ("left of" -> "right of"): every way there is, in a drawn order."""
    edits = [edit for place in _places(caption, words) for edit in place]
    return (apply_edits(caption, [edit]) for edit in draws.shuffled(edits))


def _places(caption: str, words: Sequence[Word]) -> Iterator[list[Edit]]:
    tokens, lengths = tokenize(caption), relations().lengths
    taken = {at for word in words for at in range(word.start, word.end)}
    nouns = {word.start: word for word in words if word.kind == "noun"}
    adjectives = {word.start for word in words if word.kind == "adjective"}
    i = 0
    while i < len(tokens):
        length, line = _longest(caption, tokens, i) if tokens[i].lower in lengths else (1, None)
        if line is None or any(token.start in taken for token in tokens[i : i + length]):
            i += 1
            continue
        start, end = tokens[i].start, tokens[i + length - 1].end
        i += length
        follows = i
        while follows < len(tokens) and (
            tokens[follows].start in adjectives or tokens[follows].lower in grammar().determiners
        ):
            follows += 1
        noun = nouns.get(tokens[follows].start) if follows < len(tokens) else None
        needs = line.needs
        if noun is not None and (not needs or (noun.sense is not None and noun.sense.group in needs)):
            yield [Edit(start, end, text) for text in line.become]


def _longest(caption: str, tokens: Sequence[Token], i: int) -> tuple[int, Opposite | None]:
    """The relation that begins with token i: how many tokens it has, and its line of the list."""
    for length in relations().lengths[tokens[i].lower]:
        if i + length > len(tokens):
            continue
        line = relations().opposites.get(caption[tokens[i].start : tokens[i + length - 1].end].lower())
        if line is not None:
            return length, line
    return 1, None
