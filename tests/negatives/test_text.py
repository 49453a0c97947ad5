"""Replacing words by place."""

import pytest

from hypvl.negatives.text import (
    Edit,
    apply_edits,
    match_case,
    normal_form,
    starts_with_vowel,
    tokenize,
)


def put(caption: str, old: str, new: str, occurrence: int = 0) -> str:
    """The caption with one occurrence of a word replaced."""
    result = [token for token in tokenize(caption) if token.lower == old.lower()]
    return apply_edits(caption, [Edit(result[occurrence].start, result[occurrence].end, new)])


def words(caption: str) -> list[str]:
    return [token.lower for token in tokenize(caption)]


def test_words_end_where_words_end() -> None:
    assert words("A man and a woman.") == ["a", "man", "and", "a", "woman"]
    assert words("The dog's red-haired O'Neil t-shirt") == ["the", "dog", "red-haired", "o'neil", "t-shirt"]
    assert words("the dog\u2019s ball") == ["the", "dog", "ball"]
    assert words("") == []


@pytest.mark.parametrize(
    "text",
    ["#dog", "@dog", "dog.jpg", "www.dog.com", "a/dog", "<dog>", "[dog]", "dog@x", "dog_1", "man/woman"],
)
def test_parts_of_names_and_addresses_are_no_words(text: str) -> None:
    assert "dog" not in words(text) and "man" not in words(text)


def test_accents_belong_to_the_word() -> None:
    assert words("une chaîne pinata\u0303 naïve") == ["une", "chaîne", "pinata\u0303", "naïve"]


def test_only_whole_words_are_replaced() -> None:
    # str.replace would give "A bear and a wobear"
    assert put("A man and a woman", "man", "bear") == "A bear and a woman"
    assert put("A cat on a catamaran", "cat", "dog") == "A dog on a catamaran"


def test_only_the_chosen_occurrence_changes() -> None:
    caption = "a man sees a man who sees a man"
    assert put(caption, "man", "dog", 1) == "a man sees a dog who sees a man"


@pytest.mark.parametrize(
    ("old", "word", "new", "expected"),
    [
        ("An apple on a table", "apple", "pear", "A pear on a table"),
        ("Eat a pear.", "pear", "apple", "Eat an apple."),
        ("AN APPLE", "apple", "pear", "A PEAR"),
        ("A PEAR", "pear", "apple", "AN APPLE"),
        ("a dog", "dog", "unicorn", "a unicorn"),
        ("a dog", "dog", "hourglass", "an hourglass"),
        ("an  old cat", "old", "young", "a  young cat"),
        ('a "red" sign', "red", "orange", 'an "orange" sign'),
        ("plan a, dog", "dog", "ape", "plan a, ape"),  # no article
        ("vitamin-a dog", "dog", "ape", "vitamin-a dog".replace("dog", "ape")),
        ("a big dog", "dog", "ape", "a big ape"),  # the article belongs to "big"
    ],
)
def test_articles(old: str, word: str, new: str, expected: str) -> None:
    assert put(old, word, new) == expected


def test_articles_of_words_that_sound_unlike_their_letter() -> None:
    assert [starts_with_vowel(word) for word in ("uniform", "umbrella", "one-way sign", "hour", "house", "8")] == [
        False, True, False, True, False, True,
    ]  # fmt: skip


def test_capitals_and_punctuation_stay() -> None:
    assert put("Dog, asleep!  (Really?)", "dog", "teddy bear") == "Teddy bear, asleep!  (Really?)"
    assert put("A Teddy Bear", "bear", "dog") == "A Teddy Dog"
    assert put("A man's hat...", "man", "woman") == "A woman's hat..."
    assert match_case("Fire Hydrant", "stop sign") == "Stop Sign"
    assert match_case("STOP", "go on") == "GO ON"
    assert match_case("A", "the") == "The"


def test_several_edits_keep_their_places() -> None:
    text = "an owl and a bat"
    assert apply_edits(text, [Edit(13, 16, "owl"), Edit(3, 6, "bat")]) == "a bat and an owl"


def test_normal_form_ignores_what_does_not_change_the_meaning() -> None:
    assert normal_form(" A Dog,  on a mat. ") == normal_form("a dog on a mat") == "a dog on a mat"
    assert normal_form("<mask>") == "mask"
    assert normal_form("...") == ""
