"""From the tags of the Penn treebank, which taggers give, to words with their forms."""

from hypvl.checks import one_of
from hypvl.negatives.lexicon import Kind, grammar, lexicon
from hypvl.negatives.morphology import singular
from hypvl.negatives.tagging import Word
from hypvl.negatives.text import Token

#: Names (NNP) are left out: what replaces one is not known to be false.
FORMS: dict[str, tuple[Kind, str]] = {
    "NN": ("noun", "singular"),
    "NNS": ("noun", "plural"),
    "JJ": ("adjective", "positive"),
    "JJR": ("adjective", "comparative"),
    "JJS": ("adjective", "superlative"),
    "VB": ("verb", "base"),
    "VBP": ("verb", "base"),
    "VBZ": ("verb", "third"),
    "VBG": ("verb", "ing"),
    "VBD": ("verb", "past"),
    "VBN": ("verb", "participle"),
}


def tagged_word(token: Token, tag: str, lemma: str | None) -> Word | None:
    """The word that a tagged token is, or None when it is none that may be replaced.

    Args:
        token: A whole word of the caption.
        tag: Of the Penn treebank.
        lemma: The base form; None: by the lists and rules.
    """
    if tag not in FORMS:
        return None
    kind, form = FORMS[tag]
    text, words = token.lower, grammar()
    if text in lexicon().light_nouns or text in words.be or text in words.have or text in words.determiners:
        return None
    if kind != "noun" and text in words.prepositions:
        return None
    if lemma is None:
        lemma = base_form(kind, text)
    senses = lexicon().senses(kind, lemma)
    return Word(token.start, token.end, kind, lemma, form, senses[0] if senses else None)


def base_form(kind: Kind, text: str) -> str:
    """The base form of a word as written: by the lists, and for nouns by rule."""
    one_of("kind", kind, Kind)
    for reading in lexicon().readings.get(text, ()):
        if reading.kind == kind:
            return reading.lemma
    return singular(text, lexicon().irregular_plurals) if kind == "noun" else text
