"""The words of a caption with their positions, and their replacement without changing anything else."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from hypvl.negatives.lexicon import grammar

# Letters (with their accents) and digits, joined by hyphens and apostrophes. Anything glued to a sign of addresses,
# tags or file names is not a word, nor is what is in angle or square brackets (<mask>, [MASK], <PERSON>): nothing
# in it is ever replaced.
_LETTER = r"[\w\u0300-\u036f]"
_GLUE = r"@#/\\&$"
_INSIDE = r".'\u2019-"  # joins what stands on both sides of it: U.S.A., o'clock, t-shirt
_NOT_BEFORE = rf"(?<![\w\u0300-\u036f<\[{_GLUE}{_INSIDE}])"
_WORD = re.compile(
    rf"{_NOT_BEFORE}{_LETTER}+(?:['\u2019-]{_LETTER}+)*(?!{_LETTER}|[{_GLUE}>\]]|[{_INSIDE}]\w)"
)
_LETTERS = re.compile(r"[^\W_]+")
_ARTICLE = re.compile(rf"{_NOT_BEFORE}(an?)(\s+[\"\u201c\u2018'(]?)$", re.IGNORECASE)
_POSSESSIVES = ("'s", "\u2019s", "'S", "\u2019S")


class Token(NamedTuple):
    """A word of a caption: ``caption[start:end]``; ``lower`` is it in small letters, without ``'s``."""

    start: int
    end: int
    lower: str


class Edit(NamedTuple):
    """Put ``text`` in the place of ``caption[start:end]``."""

    start: int
    end: int
    text: str


@functools.lru_cache(maxsize=4096)  # several steps look at the same caption in turn
def tokenize(caption: str) -> tuple[Token, ...]:
    """The words of a caption in order. A possessive ``'s`` belongs to no word."""
    tokens = []
    for match in _WORD.finditer(caption):
        word, start = match[0], match.start()
        if word.endswith(_POSSESSIVES):
            word = word[:-2]
        tokens.append(Token(start, start + len(word), word.lower()))
    return tuple(tokens)


def apply_edits(caption: str, edits: Sequence[Edit]) -> str:
    """The caption with the edits made, and the article before each of them put right (an apple, a pear).

    Their places do not overlap and may be in any order. Capitals are taken over from the place that is filled;
    everything outside the edits and their articles is as it was.
    """
    parts, at = [], 0
    for edit in sorted(edits):
        text = match_case(caption[edit.start : edit.end], edit.text)
        before = caption[at : edit.start]
        article = _ARTICLE.search(caption, 0, edit.start)
        if article and article.start() >= at:
            before = caption[at : article.start()] + _article_for(article[1], text) + article[2]
        parts += [before, text]
        at = edit.end
    return "".join([*parts, caption[at:]])


def _article_for(article: str, text: str) -> str:
    """``a`` or ``an`` before a text, with the capitals of the article there was."""
    wanted = "an" if starts_with_vowel(text) else "a"
    if article.isupper() and len(article) == 2:
        return wanted.upper()
    if article == "A" and wanted == "an" and text.isupper() and len(text) > 1:
        return "AN"
    return wanted.capitalize() if article[0].isupper() else wanted


def starts_with_vowel(text: str) -> bool:
    """Whether the first word takes "an": by its first letter, and by the list of words that sound otherwise."""
    words = text.lower().split()
    if not words:
        return False
    first, part = words[0], words[0].split("-")[0]
    if first in grammar().consonant_sound or part in grammar().consonant_sound:
        return False
    if first in grammar().vowel_sound or part in grammar().vowel_sound:
        return True
    return first[0] in "aeiouàáâäæèéêëìíîïòóôöøùúûü"


def match_case(old: str, new: str) -> str:
    """``new`` with the capitals of ``old``: ALL, Every Word, First, or as it is."""
    if old.isupper() and sum(letter.isalpha() for letter in old) > 1:
        return new.upper()
    if old[:1].isupper():
        words = old.split()
        if len(words) > 1 and all(word[0].isupper() for word in words):
            return " ".join(word[:1].upper() + word[1:] for word in new.split(" "))
        return new[:1].upper() + new[1:]
    return new


def normal_form(text: str) -> str:
    """A text reduced to what counts as a difference: words, not blanks, capitals or punctuation."""
    return " ".join(_LETTERS.findall(text.casefold()))
