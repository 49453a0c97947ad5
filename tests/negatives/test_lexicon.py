"""The word lists, and what they say."""

import pytest

from hypvl.negatives.lexicon import KINDS, Sense, fingerprint, lexicon, relations


def sense(kind, lemma, group=None) -> Sense:
    return next(one for one in lexicon().senses(kind, lemma) if group in (None, one.group))


def test_there_are_hundreds_of_words() -> None:
    counts = {kind: len({lemma for k, lemma in lexicon()._senses if k == kind}) for kind in KINDS}
    assert counts["noun"] > 900 and counts["adjective"] > 300 and counts["verb"] > 200


def test_every_word_has_something_that_contradicts_it() -> None:
    for (kind, lemma), senses in lexicon()._senses.items():
        for one in senses:
            assert lexicon().contradictions(one), (kind, lemma, one)


def test_alike_lines_name_words_there_are() -> None:
    for kind in KINDS:
        heads = {cluster[0] for group in lexicon()._groups[kind].values() for cluster in group["clusters"]}
        unknown = {word for pair in lexicon()._alike[kind] for word in pair} - heads
        assert not unknown, kind


def test_contradictions_are_of_the_group_and_not_alike() -> None:
    red = lexicon().contradictions(sense("adjective", "crimson"))
    assert "blue" in red and not {"red", "orange", "pink", "multicolored", "large"} & set(red)
    man = lexicon().contradictions(sense("noun", "guy"))
    assert "woman" in man and not {"man", "boy", "adult", "person", "dog"} & set(man)
    assert set(lexicon().contradictions(sense("verb", "sit", "posture and motion"))) >= {"stand", "run"}
    for kind in KINDS:
        for name, group in lexicon()._groups[kind].items():
            for cluster in group["clusters"]:
                for other in lexicon().contradictions(Sense(kind, name, cluster[0])):
                    assert not lexicon().alike(kind, other, cluster[0])


@pytest.mark.parametrize(
    ("kind", "word", "other", "expected"),
    [
        ("noun", "man", "woman", True),
        ("noun", "man", "person", False),  # a man is a person
        ("noun", "dog", "animal", False),
        ("noun", "sofa", "couch", False),
        ("noun", "dog", "zorblat", None),
        ("adjective", "red", "blue", True),
        ("adjective", "red", "large", False),  # both may be true
        ("adjective", "large", "small", True),
        ("adjective", "big", "huge", False),
        ("verb", "sit", "run", True),
        ("verb", "sit", "hold", False),
        ("verb", "lie", "sleep", False),
        ("verb", "ride", "feed", True),  # feeding is written in the place of riding, never read so
    ],
)
def test_contradicts(kind, word, other, expected) -> None:
    assert lexicon().contradicts(kind, word, other) is expected
    assert lexicon().contradicts(kind, other, word) is expected


def test_forms_and_back() -> None:
    assert lexicon().inflect("noun", "knife", "plural") == "knives"
    assert lexicon().inflect("noun", "water", "plural") is None
    assert lexicon().inflect("noun", "pants", "singular") is None
    assert lexicon().inflect("verb", "run", "ing") == "running"
    assert lexicon().inflect("verb", "sit", "past") == "sat"
    assert (
        lexicon().inflect("verb", "ride", "past/participle") is None
    )  # rode or ridden, it is not known which
    assert lexicon().inflect("adjective", "small", "comparative") == "smaller"
    assert lexicon().inflect("adjective", "wooden", "comparative") is None
    readings = {(one.kind, one.lemma, one.form) for one in lexicon().readings["women"]}
    assert readings == {("noun", "woman", "plural")}


def test_opposites_of_opposites_come_back() -> None:
    table = relations().opposites
    for left, right in (
        ("left of", "right of"),
        ("above", "below"),
        ("in front of", "behind"),
        ("inside", "outside"),
    ):
        assert right in table[left].become and left in table[right].become
    categories = set(lexicon()._groups["noun"])
    assert all(line.needs <= categories for line in table.values())
    assert all(line.words not in line.become for line in table.values())


def test_the_lists_have_a_fingerprint() -> None:
    assert len(fingerprint()) == 16 and fingerprint() == fingerprint()
