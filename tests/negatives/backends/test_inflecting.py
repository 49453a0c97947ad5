"""textblob and lemminflect (skipped where they are not installed: pip install 'hypvl[negatives]')."""

from importlib.util import find_spec

import pytest

from hypvl.errors import UserError
from hypvl.negatives.backends.inflecting import LemminflectArguments
from hypvl.negatives.generate import Negatives, Row, Settings, make_negatives
from tests.negatives.test_generate import CAPTIONS


def made(caption: str, *, seed: int = 0, **arguments) -> Negatives:
    backend = LemminflectArguments(**arguments).build()
    return make_negatives([Row(0, "0.jpg", caption)], backend, Settings(seed=seed))[0]


def test_says_what_is_missing_without_the_packages() -> None:
    if find_spec("lemminflect") and find_spec("textblob"):
        assert LemminflectArguments().identity()["backend"] == "lemminflect"
        return
    with pytest.raises(UserError, match=r"--backend lemminflect needs .*pip install 'hypvl\[negatives\]'"):
        LemminflectArguments().build()


class TestInstalled:
    """What needs the packages."""

    @pytest.fixture(autouse=True)
    def packages(self) -> None:
        for package in ("textblob", "lemminflect"):
            pytest.importorskip(package, reason=f"{package} is not installed (extra negatives)")

    def test_words_of_no_list_are_found(self) -> None:
        caption = "Two otters juggling torches"
        (words,) = LemminflectArguments().build().tag([caption])
        assert [(w.kind, w.lemma, w.form) for w in words] == [
            ("adjective", "two", "positive"),
            ("noun", "otter", "plural"),
            ("verb", "juggle", "ing"),
            ("noun", "torch", "plural"),
        ]

    def test_words_of_no_list_change_places_in_the_right_form(self) -> None:
        texts = {made("An otter juggling torches", seed=seed).texts["relation"] for seed in range(4)}
        assert texts == {"A torch juggling otters"}

    def test_nouns_of_no_list_become_other_things_in_their_form(self) -> None:
        backend = LemminflectArguments().build()
        for seed in range(8):
            text = made("The ziggurats", seed=seed).texts["object"]
            (word,) = backend.tag([text])[0]
            assert text.startswith("The ") and word.kind == "noun" and word.form == "plural"

    def test_what_is_not_known_to_contradict_is_left_alone_unless_asked(self) -> None:
        caption = "A man juggling, an effervescent lady"
        assert "action" not in made(caption).texts and "attribute" not in made(caption).texts
        unknown = made(caption, accept_unknown=True)
        assert unknown.texts["action"].endswith("ing, an effervescent lady")
        assert "attribute" not in unknown.texts

    def test_the_lists_come_first(self) -> None:
        assert made("a red bus").texts["attribute"] in {f"{article} bus" for article in (
            "a blue", "a green", "a yellow", "a purple", "a brown", "a black", "a white", "a gray", "a black and white",
        )}  # fmt: skip

    def test_whole_words_only(self) -> None:
        for caption in (*CAPTIONS, "a/otter #otter otter.jpg", "the red-haired O'Otter's dog!"):
            for word in LemminflectArguments().build().tag([caption])[0]:
                assert caption[word.start - 1 : word.start] in ("", " ") or word.start == 0
