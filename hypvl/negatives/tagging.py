"""Nouns, adjectives and verbs of a caption by the built-in lists and the words around them."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypvl.negatives.lexicon import Kind, Reading, Sense, grammar, lexicon
from hypvl.negatives.text import tokenize

# Which form is tried first where several are written alike (cut, run).
_VERB_ORDER = {"base": 0, "ing": 1, "third": 2, "past/participle": 3, "past": 4, "participle": 5}
# What fits best: being done to something, then the rarer subjects last.
_SUBJECTS = {"animate": 4, "vehicle": 3, "inanimate": 2}
_PASSIVE = 5
# After these an -ing form says what kind of thing follows (with flashing lights).
_DESCRIBED_BY = ("with", "of")
_COUNTS = frozenset(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))


class Word(NamedTuple):
    """A noun, adjective or verb of a caption: ``caption[start:end]``."""

    start: int
    end: int
    kind: Kind
    lemma: str  # the base form
    form: str  # which form it is, see :mod:`hypvl.negatives.morphology`
    sense: Sense | None  # what it means here; None when it is in no list


class _Unit(NamedTuple):
    """``caption[start:end]``: one word of the lists (which may be several tokens), or one token that is none."""

    start: int
    end: int
    text: str
    readings: tuple[Reading, ...]
    gap: str  # what stands between the unit before and this one


def tag(caption: str) -> list[Word]:
    """The words of a caption that the lists know, in order; the longest phrase wins (``fire truck``).

    What the lists leave open is decided by the neighbours: ``orange`` before a noun is an adjective, ``stands``
    after a singular noun is a verb, after a determiner a noun. When in doubt the word is left out. A noun that
    is part of the name of the next one (``pizza box``) is left out, too.
    """
    chosen = _Decisions(_units(caption)).all()
    words = []
    for i, word in enumerate(chosen):
        if word is None:
            continue
        after = chosen[i + 1] if i + 1 < len(chosen) and word.kind == "noun" else None
        if after is None or after.kind != "noun" or caption[word.end : after.start].strip():
            words.append(word)
    return words


def units_of(caption: str) -> list[tuple[str, tuple[Reading, ...]]]:
    """The words of a caption in small letters with everything they can be, nothing decided."""
    return [(unit.text, unit.readings) for unit in _units(caption)]


@functools.lru_cache(maxsize=4096)
def _units(caption: str) -> tuple[_Unit, ...]:
    tokens, lists = tokenize(caption), lexicon()
    readings, lengths = lists.readings, lists.lengths
    units = []
    i, end = 0, 0
    while i < len(tokens):
        text, last = tokens[i].lower, i + 1
        for length in lengths.get(text, ()):
            if length > 1 and i + length <= len(tokens):
                several = caption[tokens[i].start : tokens[i + length - 1].end].lower()
                if several in readings:
                    text, last = several, i + length
                    break
        start = tokens[i].start
        gap, end = caption[end:start] if i else ".", tokens[last - 1].end
        units.append(_Unit(start, end, text, readings.get(text, ()), gap))
        i = last
    return tuple(units)


def _subject(noun: Word) -> str:
    if noun.sense is None:
        return "inanimate"
    if noun.sense.group == "vehicles":
        return "vehicle"
    return "animate" if lexicon().group(noun.sense).get("animate", False) else "inanimate"


class _Decisions:
    """What each unit of a caption is, decided from left to right."""

    def __init__(self, units: Sequence[_Unit]) -> None:
        self._units = units
        self._chosen: list[Word | None] = []
        self._subjects: set[str] = set()  # of the nouns of this sentence so far

    def all(self) -> list[Word | None]:
        """A word for each unit, None where it is left open."""
        living = grammar().living
        for i, unit in enumerate(self._units):
            word = self._choose(i) if unit.readings else None
            self._chosen.append(word)
            if len(unit.gap) > 1 and any(sign in unit.gap for sign in ".!?;"):
                self._subjects.clear()
            if word is not None and word.kind == "noun":
                self._subjects.add(_subject(word))
            elif unit.text in living:
                self._subjects.add("animate")
        return self._chosen

    def _before(self, i: int) -> str:
        """The text before unit i; nothing at the start of a sentence."""
        near = i > 0 and self._units[i].gap in (" ", ", ", "'s ", "\u2019s ")
        return self._units[i - 1].text if near else ""

    def _word_before(self, i: int) -> Word | None:
        return self._chosen[i - 1] if self._before(i) else None

    def _after(self, i: int) -> _Unit | None:
        """The unit after unit i; None at the end of a sentence."""
        after = self._units[i + 1] if i + 1 < len(self._units) else None
        return after if after is not None and after.gap in (" ", ", ") else None

    def _choose(self, i: int) -> Word | None:
        unit = self._units[i]
        nouns, verbs = [], []
        for one in unit.readings:
            if one.kind == "noun":
                nouns.append(one)
            elif one.kind == "verb":
                verbs.append(one)
            elif self._describes(i):
                sense = self._adjective_sense(i, one.senses)
                return None if sense is None else Word(unit.start, unit.end, *one[:3], sense)
        if verbs and not self._follows_determiner(i):
            for one in sorted(verbs, key=lambda verb: _VERB_ORDER[verb.form]):
                if self._acts(i, one, noun_too=bool(nouns)):
                    sense = self._verb_sense(i, one)
                    if sense is not None:
                        return Word(unit.start, unit.end, *one[:3], sense)
        noun = self._noun(i, nouns) if nouns else None
        return None if noun is None else Word(unit.start, unit.end, *noun[:3], noun.senses[0])

    def _follows_determiner(self, i: int) -> bool:
        before = self._word_before(i)
        described = bool(self._before(i)) and (
            before.kind == "adjective"
            if before is not None
            else any(one.kind == "adjective" for one in self._units[i - 1].readings)
        )
        return described or self._before(i) in grammar().determiners or "s " in self._units[i].gap

    def _describes(self, i: int) -> bool:
        """Whether an adjective fits: before a noun, another adjective or an unknown word; or after "is"."""
        after, words = self._after(i), grammar()
        if self._before(i) in words.be:
            return after is None or after.text not in ("of", "with")
        if after is None:
            return False
        if after.text in ("and", "or"):
            rest = self._after(i + 1)
            return rest is not None and any(one.kind == "adjective" for one in rest.readings)
        if after.text in words.prepositions or after.text in words.determiners or after.text in words.be:
            return after.text in _COUNTS
        return not after.readings or any(one.kind != "verb" for one in after.readings)

    def _adjective_sense(self, i: int, senses: Sequence[Sense]) -> Sense | None:
        """The sense that says something of the noun that follows, else one that fits everything."""
        category, text = "", ""
        for unit in self._units[i + 1 : i + 4]:
            text = unit.text
            category = next((one.senses[0].group for one in unit.readings if one.kind == "noun"), "")
            if category or not unit.readings:
                break
        best, best_score = None, 0
        for sense in senses:
            group = lexicon().group(sense)
            score = 1
            if "of" in group or "of_words" in group:
                fits = category in group.get("of", ()) or text in group.get("of_words", ())
                score = 2 if fits else 0
            if score > best_score:
                best, best_score = sense, score
        return best

    def _acts(self, i: int, verb: Reading, *, noun_too: bool) -> bool:
        """Whether this form of a verb fits after what stands before."""
        before, text, words = self._word_before(i), self._before(i), grammar()
        after_noun = before is not None and before.kind == "noun"
        plural = after_noun and before is not None and before.form in ("plural", "pair")
        if verb.form == "base":
            return text in words.before_verbs or plural
        if verb.form == "third":
            if noun_too:
                return after_noun and not plural
            return not plural and (text not in words.prepositions or text in words.before_third)
        if verb.form == "ing":
            return after_noun or text in words.be or not (noun_too or text in _DESCRIBED_BY)
        if after_noun or text in words.be or text in words.have:
            return True
        if verb.form == "participle" or noun_too:
            return False
        return text in words.before_verbs or self._is_bare(i)  # not "painted horses"

    def _verb_sense(self, i: int, verb: Reading) -> Sense | None:
        """The first sense whose frame fits what follows, and whose subject came before."""
        after, bare = self._after(i), self._is_bare(i)
        passive = after is not None and after.text == "by" and verb.form in ("participle", "past/participle")
        best, best_score = None, 0
        for sense in verb.senses:
            group: dict[str, Any] = lexicon().group(sense)
            if (group["frame"] == "none") != bare and not passive:
                continue
            score = self._subject_score(group.get("subject"))
            if passive and group["frame"] == "object":
                score = _PASSIVE
            if score > best_score:
                best, best_score = sense, score
        return best

    def _is_bare(self, i: int) -> bool:
        """Whether a verb there has no object: the sentence ends, or a preposition or an adverb follows."""
        after = self._after(i)
        if after is None or after.gap != " ":
            return True
        return after.text in grammar().prepositions or after.text.endswith("ly")

    def _subject_score(self, subject: str | None) -> int:
        if subject is None:
            return 1
        if subject in self._subjects or (subject == "animate" and not self._subjects):
            return _SUBJECTS[subject]
        return 0

    def _noun(self, i: int, nouns: Sequence[Reading]) -> Reading:
        """The noun; of one that is alike in singular and plural, the number its determiner has."""
        if len(nouns) < 2 or nouns[0].lemma != nouns[1].lemma:
            return nouns[0]
        near = self._units[max(0, i - 3) : i]
        singular = any(unit.text in grammar().singular_determiners for unit in near)
        return next(one for one in nouns if one.form == ("singular" if singular else "plural"))
