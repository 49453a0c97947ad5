"""Which words of a caption are found, and what they are taken for."""

import pytest

from hypvl.negatives.tagging import tag


def found(caption: str) -> dict[str, str]:
    return {caption[word.start : word.end]: word.kind for word in tag(caption)}


def test_a_caption_in_full() -> None:
    caption = "Two women with black dogs are riding a red fire truck."
    assert [(caption[w.start : w.end], w.kind, w.lemma, w.form) for w in tag(caption)] == [
        ("Two", "adjective", "two", "positive"),
        ("women", "noun", "woman", "plural"),
        ("black", "adjective", "black", "positive"),
        ("dogs", "noun", "dog", "plural"),
        ("riding", "verb", "ride", "ing"),
        ("red", "adjective", "red", "positive"),
        ("fire truck", "noun", "fire truck", "singular"),
    ]


@pytest.mark.parametrize(
    ("caption", "word", "kind"),
    [
        ("an orange cat", "orange", "adjective"),
        ("a cat eating an orange", "orange", "noun"),
        ("the bus is orange", "orange", "adjective"),
        ("a red and white bus", "red", "adjective"),
        ("a tall building", "building", "noun"),
        ("a man building a house", "building", "verb"),
        ("the man stands there", "stands", "verb"),
        ("a horse runs", "runs", "verb"),
        ("people ride horses", "ride", "verb"),
        ("a cat sat on a bed", "sat", "verb"),
        ("a glass door", "glass", "adjective"),
    ],
)
def test_neighbours_decide(caption: str, word: str, kind: str) -> None:
    assert found(caption)[word] == kind


@pytest.mark.parametrize(
    ("caption", "word"),
    [
        ("a bowl filled with rice", "filled"),  # "emptied with rice" is not English
        ("a sleeping dog", "sleeping"),
        ("a pizza box", "pizza"),  # part of a name
        ("the left of a house", "left"),
        ("a parking lot", "parking"),
        ("a swing with painted horses", "painted"),
        ("a busy crossing of a street", "crossing"),
        ("a car with flying birds", "flying"),
        ("a full of it", "full"),
    ],
)
def test_when_in_doubt_it_is_left_out(caption: str, word: str) -> None:
    assert word not in found(caption)


def test_number_of_nouns_alike_in_both() -> None:
    assert [word.form for word in tag("a sheep")] == ["singular"]
    assert [word.form for word in tag("many sheep")] == ["plural"]


def sense_of(caption: str, word: str) -> str:
    sense = next(one.sense for one in tag(caption) if caption[one.start : one.end] == word)
    assert sense is not None
    return sense.group


def test_the_noun_decides_what_an_adjective_means() -> None:
    assert sense_of("an old man", "old") == "age"
    assert sense_of("an old house", "old") == "newness"
    assert sense_of("an old dog", "old") == "age of animals"
    assert sense_of("a little dog", "little") == "size"
    assert sense_of("a short man", "short") == "height"
    assert sense_of("a short rope", "short") == "length"
    assert sense_of("a little girl", "little") == "age"
    assert sense_of("a little table", "little") == "size"


def test_subject_and_object_decide_what_a_verb_means() -> None:
    assert sense_of("a dog sitting on a bed", "sitting") == "posture and motion"
    assert sense_of("a lamp sitting on a desk", "sitting") == "things in place"
    assert sense_of("a truck sitting on a road", "sitting") == "traffic"
    assert sense_of("a boy playing in sand", "playing") == "posture and motion"
    assert sense_of("a boy playing tennis", "playing") == "playing"
    assert sense_of("a horse ridden by a man", "ridden") == "riding"


def test_odd_texts() -> None:
    for text in ("", " ", "...", "###", "<mask>", "a", "the of and", "\n\t", "1234", "🐕 🐈", "x" * 5000):
        assert tag(text) == []
