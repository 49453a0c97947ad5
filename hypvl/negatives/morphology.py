"""English endings by rule: plurals, the forms of verbs, the degrees of adjectives.

Every function takes the irregular words as a table; a phrase is inflected at its head (the last word of a noun,
the first of a verb).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

#: "mass" nouns have no plural; "pair" nouns (pants) no singular. "past/participle" is a form that is both.
NounForm: TypeAlias = Literal["singular", "plural", "mass", "pair"]
VerbForm: TypeAlias = Literal["base", "third", "ing", "past", "participle", "past/participle"]
Degree: TypeAlias = Literal["positive", "comparative", "superlative"]

_HISSING = re.compile(r"(s|x|z|ch|sh)$")
_CONSONANT_Y = re.compile(r"[^aeiou]y$")
_CONSONANT_O = re.compile(r"[^aeiou]o$")
# one vowel between consonants, one syllable: the last letter is doubled (run -> running)
_SHORT = re.compile(r"^[^aeiou]*[aeiou][^aeiouwxy]$")


def plural(noun: str, irregular: Mapping[str, str]) -> str:
    """``bus`` -> ``buses``; of a phrase the last word is changed, where the phrase itself is not listed."""
    if noun in irregular:
        return irregular[noun]
    rest, space, word = noun.rpartition(" ")
    if word in irregular:
        return f"{rest}{space}{irregular[word]}"
    if _HISSING.search(word):
        return f"{noun}es"
    if _CONSONANT_Y.search(word):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def singular(noun: str, irregular: Mapping[str, str]) -> str:
    """``buses`` -> ``bus``: the inverse of :func:`plural`, for nouns that are in no list."""
    for one, many in irregular.items():
        if many == noun:
            return one
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith(("sses", "xes", "zes", "ches", "shes")):
        return noun[:-2]
    if noun.endswith("s") and not noun.endswith(("ss", "us", "is")):
        return noun[:-1]
    return noun


def verb_forms(verb: str, irregular: Mapping[str, Sequence[str]]) -> dict[VerbForm, str]:
    """Every form of a verb in its base form; of a phrase (``look at``) the first word is changed.

    ``irregular`` is base form -> third person, -ing form, past, participle.
    """
    head, space, rest = verb.partition(" ")
    if verb in irregular:
        third, ing, past, participle = irregular[verb]
    elif head in irregular:
        third, ing, past, participle = (f"{form}{space}{rest}" for form in irregular[head])
    else:
        third, ing, past = (f"{form}{space}{rest}" for form in _regular(head))
        participle = past
    forms: dict[VerbForm, str] = {"base": verb, "third": third, "ing": ing}
    if past == participle:
        return {**forms, "past/participle": past}
    return {**forms, "past": past, "participle": participle}


def _regular(verb: str) -> tuple[str, str, str]:
    """Third person, -ing form, past of a regular verb."""
    if _HISSING.search(verb) or _CONSONANT_O.search(verb):
        third = f"{verb}es"
    elif _CONSONANT_Y.search(verb):
        third = f"{verb[:-1]}ies"
    else:
        third = f"{verb}s"
    if verb.endswith("ie"):
        return third, f"{verb[:-2]}ying", f"{verb}d"
    if verb.endswith("e"):
        return third, f"{verb if verb.endswith(('ee', 'oe', 'ye')) else verb[:-1]}ing", f"{verb}d"
    if _CONSONANT_Y.search(verb):
        return third, f"{verb}ing", f"{verb[:-1]}ied"
    stem = f"{verb}{verb[-1]}" if _SHORT.search(verb) else verb
    return third, f"{stem}ing", f"{stem}ed"


def degrees(adjective: str, irregular: Mapping[str, Sequence[str]]) -> dict[Degree, str]:
    """``big`` -> ``bigger``, ``biggest``; longer adjectives too, so give only those that take endings."""
    if adjective in irregular:
        comparative, superlative = irregular[adjective]
    else:
        if adjective.endswith("e"):
            stem = adjective[:-1]
        elif _CONSONANT_Y.search(adjective):
            stem = f"{adjective[:-1]}i"
        else:
            stem = f"{adjective}{adjective[-1]}" if _SHORT.search(adjective) else adjective
        comparative, superlative = f"{stem}er", f"{stem}est"
    return {"positive": adjective, "comparative": comparative, "superlative": superlative}
