"""Endings."""

import pytest

from hypvl.negatives.lexicon import lexicon
from hypvl.negatives.morphology import degrees, plural, singular, verb_forms


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("dog", "dogs"), ("bus", "buses"), ("box", "boxes"), ("beach", "beaches"), ("dish", "dishes"),
        ("puppy", "puppies"), ("toy", "toys"), ("man", "men"), ("fireman", "firemen"), ("knife", "knives"),
        ("sheep", "sheep"), ("fire truck", "fire trucks"), ("wine glass", "wine glasses"), ("radio", "radios"),
    ],
)  # fmt: skip
def test_plurals(one: str, many: str) -> None:
    irregular = lexicon().irregular_plurals
    assert plural(one, irregular) == many
    assert singular(many, irregular) == one


@pytest.mark.parametrize("word", ["grass", "cactus", "tennis"])
def test_what_is_no_plural_stays(word: str) -> None:
    assert singular(word, {}) == word


@pytest.mark.parametrize(
    ("verb", "third", "ing", "past"),
    [
        ("walk", "walks", "walking", "walked"), ("ride", "rides", "riding", "rode"),
        ("watch", "watches", "watching", "watched"), ("carry", "carries", "carrying", "carried"),
        ("play", "plays", "playing", "played"), ("tie", "ties", "tying", "tied"),
        ("jog", "jogs", "jogging", "jogged"), ("listen", "listens", "listening", "listened"),
        ("go", "goes", "going", "went"), ("dye", "dyes", "dyeing", "dyed"), ("fix", "fixes", "fixing", "fixed"),
        ("look at", "looks at", "looking at", "looked at"),
    ],
)  # fmt: skip
def test_verbs(verb: str, third: str, ing: str, past: str) -> None:
    irregular = {"ride": ["rides", "riding", "rode", "ridden"], "go": ["goes", "going", "went", "gone"]}
    forms = verb_forms(verb, irregular)
    assert (forms["third"], forms["ing"]) == (third, ing)
    assert forms.get("past", forms.get("past/participle")) == past


def test_a_past_that_is_not_a_participle_is_a_form_of_its_own() -> None:
    forms = verb_forms("eat", {"eat": ["eats", "eating", "ate", "eaten"]})
    assert forms["past"] == "ate" and forms["participle"] == "eaten" and "past/participle" not in forms


def test_degrees() -> None:
    assert degrees("big", {}) == {"positive": "big", "comparative": "bigger", "superlative": "biggest"}
    assert list(degrees("dirty", {}).values()) == ["dirty", "dirtier", "dirtiest"]
    assert list(degrees("large", {}).values()) == ["large", "larger", "largest"]
    assert degrees("good", {"good": ["better", "best"]})["comparative"] == "better"
