"""The built-in backend."""

from hypvl.negatives.backends.base import BuiltinArguments, Request
from hypvl.negatives.keyed_random import Draws
from hypvl.negatives.lexicon import lexicon


def replacements(caption: str, written: str, position: int = 0) -> list[str]:
    backend = BuiltinArguments().build()
    (words,) = backend.tag([caption])
    word = next(word for word in words if caption[word.start : word.end] == written)
    return list(backend.replacements([Request(caption, word, Draws(0, position, 2))])[0])


def test_replacements_have_the_form_of_the_word() -> None:
    assert set(replacements("two women", "women")) == {"men", "boys", "babies", "children"}
    assert set(replacements("the largest bus", "largest")) == {"smallest"}
    assert "pants" not in replacements("blue jeans", "jeans")
    assert {"stood", "walked"} <= set(replacements("a dog sat there on a bed", "sat"))
    # sat may be the past or the participle: ran (run) could only be one of them
    assert not {"ran", "run"} & set(replacements("a dog sat there on a bed", "sat"))


def test_replacements_contradict() -> None:
    for other in replacements("a red bus", "red"):
        assert lexicon().contradicts("adjective", "red", other)
    for other in replacements("a dog", "dog"):
        assert lexicon().contradicts("noun", "dog", other)


def test_the_order_is_drawn() -> None:
    firsts = {replacements("a red bus", "red", position)[0] for position in range(60)}
    assert len(firsts) >= 6
    assert replacements("a red bus", "red", 3) == replacements("a red bus", "red", 3)


def test_identity_names_the_lists() -> None:
    assert BuiltinArguments().identity()["backend"] == "builtin"
    assert BuiltinArguments().build().inflect("fire truck", "plural") == "fire trucks"
