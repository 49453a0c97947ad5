"""Relation negatives."""

import pytest

from hypvl.negatives.keyed_random import Draws
from hypvl.negatives.lexicon import lexicon
from hypvl.negatives.relation import (
    ALIKE,
    NO_FORM,
    NO_RELATION,
    SYMMETRIC,
    TOO_FEW,
    opposite_relations,
    relation_negatives,
    swap_nouns,
)
from hypvl.negatives.tagging import tag


def inflect(lemma: str, form: str) -> str | None:
    return lexicon().inflect("noun", lemma, form)


def swaps(caption: str) -> list[str]:
    return [text for text, _ in swap_nouns(caption, tag(caption), inflect) if text is not None]


def reasons(caption: str) -> set[str]:
    return {reason for text, reason in swap_nouns(caption, tag(caption), inflect) if text is None}


def opposites(caption: str) -> set[str]:
    return set(opposite_relations(caption, tag(caption), Draws(0, 0, 0)))


def test_two_nouns_suffice() -> None:
    assert swaps("a man riding a horse") == ["a horse riding a man"]


def test_the_first_two_come_first() -> None:
    assert swaps("a man rides a horse on a beach")[0] == "a horse rides a man on a beach"


def test_places_are_exact() -> None:
    # replacing texts would also change "man" in "woman" and in "mango"
    assert swaps("a woman gives a mango to a man")[0] == "a mango gives a woman to a man"
    assert "a man gives a mango to a woman" in swaps("a woman gives a mango to a man")


def test_number_articles_and_capitals_stay_with_the_place() -> None:
    assert swaps("A woman with two dogs.") == ["A dog with two women."]
    assert swaps("An elephant chasing a dog") == ["A dog chasing an elephant"]
    assert swaps("Dogs chase an elephant") == ["Elephants chase a dog"]
    assert swaps("Children ride the horses!") == ["Horses ride the children!"]


def test_nouns_without_number_move_with_their_determiners() -> None:
    assert swaps("A red bus on the grass.") == ["The grass on a red bus."]
    assert swaps("Water under a bridge") == ["A bridge under water"]
    # "freshly" may belong to the grass: no "grass under freshly a man"
    assert swaps("a man under freshly cut grass") == [] and reasons("a man under freshly cut grass") == {
        NO_FORM
    }


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("a man chasing a man", ALIKE),
        ("a man chasing men", ALIKE),
        ("a couch behind a sofa", ALIKE),
        ("a dog and a cat", SYMMETRIC),
        ("a dog next to a cat", SYMMETRIC),
        ("a plate of pizza", SYMMETRIC),
        ("a dog", TOO_FEW),
        ("nothing to see", TOO_FEW),
    ],
)
def test_swaps_that_would_be_true_or_nonsense_are_refused(caption: str, reason: str) -> None:
    assert swaps(caption) == []
    assert reasons(caption) == {reason}


def test_attributes_make_a_symmetric_relation_false() -> None:
    assert swaps("a black dog and a white cat") == ["a black cat and a white dog"]
    assert swaps("two dogs and a cat") == ["two cats and a dog"]


def test_equal_nouns_do_not_stop_later_ones() -> None:
    assert swaps("a man and a man on a bench")[0] == "a man and a bench on a man"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A cup to the left of a plate", {"A cup to the right of a plate"}),
        ("a cup on the left side of the table", {"a cup on the right side of the table"}),
        ("a bird above a house", {"a bird below a house", "a bird under a house"}),
        ("A dog in front of a car.", {"A dog behind a car."}),
        ("Behind the fence", {"In front of the fence"}),
        ("a cat on top of a tv", {"a cat underneath a tv", "a cat below a tv"}),
        ("a man with an umbrella", {"a man without an umbrella"}),
        ("a man on a phone", {"a man under a phone", "a man beside a phone"}),
    ],
)
def test_opposites(caption: str, expected: set[str]) -> None:
    assert opposites(caption) == expected


@pytest.mark.parametrize(
    "caption",
    [
        "on a sunny day",
        "in the middle of it",
        "on display",
        "with ease",
        "a man looking at a dog",
        "upon overunder",
    ],
)
def test_what_only_looks_like_a_relation_stays(caption: str) -> None:
    assert opposites(caption) == set()


def test_methods() -> None:
    caption = "a cat on a bed"

    def made(method, position=0):
        draws = Draws(0, position, 0)
        return list(relation_negatives(caption, tag(caption), inflect, draws, method))

    assert [text for text, _ in made("swap")] == ["a bed on a cat"]
    texts = {text for text, _ in made("opposite") if text}
    assert texts == {"a cat under a bed", "a cat beside a bed"}
    first = [made("either", position)[0].text for position in range(200)]
    assert 60 < first.count("a bed on a cat") < 140  # a fair coin: 100 +- 7
    draws = Draws(0, 0, 0)
    assert list(relation_negatives("a dog", tag("a dog"), inflect, draws, "opposite")) == [
        (None, NO_RELATION)
    ]
