"""Tags of the Penn treebank."""

import pytest

from hypvl.negatives.backends.taggers import base_form, tagged_word
from hypvl.negatives.text import tokenize


@pytest.mark.parametrize(
    ("text", "tag", "lemma", "form"),
    [
        ("Dogs", "NNS", "dog", "plural"),
        ("zorbs", "NNS", "zorb", "plural"),
        ("riding", "VBG", "ride", "ing"),
        ("bigger", "JJR", "big", "comparative"),
        ("men", "NNS", "man", "plural"),
    ],
)
def test_words(text: str, tag: str, lemma: str, form: str) -> None:
    (token,) = tokenize(text)
    word = tagged_word(token, tag, None)
    assert word is not None and (word.lemma, word.form) == (lemma, form)
    assert base_form(word.kind, token.lower) == lemma


@pytest.mark.parametrize(
    ("text", "tag"),
    [("Paris", "NNP"), ("group", "NN"), ("is", "VBZ"), ("next", "JJ"), ("other", "JJ"), ("of", "IN")],
)
def test_what_may_not_be_replaced(text: str, tag: str) -> None:
    (token,) = tokenize(text)
    assert tagged_word(token, tag, None) is None
