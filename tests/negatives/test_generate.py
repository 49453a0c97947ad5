"""The negatives of captions: one test for each fault of the published generator, and what else must hold."""

import pytest

from hypvl.negatives import generate
from hypvl.negatives.backends.base import BuiltinBackend
from hypvl.negatives.generate import (
    FIELDS,
    NO_REPLACEMENT,
    NOT_ASKED,
    TYPES,
    Negatives,
    Row,
    Settings,
    make_negatives,
)
from hypvl.negatives.text import normal_form
from tests.negatives.fakes import Saying

CAPTIONS = [
    "A man riding a wave on top of a surfboard.",
    "A woman with two black dogs is riding a red bicycle next to the parked cars.",
    "A small orange cat sitting on a wooden bench beside an orange.",
    "An elephant stands in the water near its calf.",
    "PEOPLE RIDE HORSES ON THE BEACH",
    "a dog and a dog",
    "A man",
    "",
    "###",
    "<mask>",
    "A <mask> riding a <mask> horse.",
    "Two giraffes standing next to each other near a tree.",
]


def negatives(*captions: str, backend=None, others: tuple[str, ...] = (), **settings) -> list[Negatives]:
    rows = [Row(i, f"{i}.jpg", caption, (), others) for i, caption in enumerate(captions)]
    return make_negatives(rows, backend or BuiltinBackend(), Settings(**settings))


def test_published_fault_substrings() -> None:
    texts = set()
    for seed in range(20):
        (made,) = negatives(
            "a man and a woman on a mango", backend=Saying("zorb"), seed=seed, types=("object",)
        )
        texts.add(made.texts["object"])
    assert texts == {
        "a zorb and a woman on a mango",
        "a man and a zorb on a mango",
        "a man and a woman on a zorb",
    }


def test_published_fault_all_occurrences() -> None:
    texts = set()
    for seed in range(20):
        (made,) = negatives("a dog, a dog", backend=Saying("zorb"), seed=seed, types=("object",))
        texts.add(made.texts["object"])
    assert texts == {"a zorb, a dog", "a dog, a zorb"}


def test_published_fault_two_nouns_suffice_for_the_relation() -> None:
    (made,) = negatives("a man riding a horse", relation="swap")
    assert made.texts["relation"] == "a horse riding a man"


def test_published_fault_equal_nouns() -> None:
    (made,) = negatives("a dog biting a dog", relation="swap")
    assert made.line()["relation_aug_caption"] == "###" and made.line()["valid_caption"][1] == 0


def test_published_fault_text_that_is_only_a_mask() -> None:
    for caption in ("", "###", "<mask>", "wow!"):
        (made,) = negatives(caption)
        assert made.texts == {} and made.line()["valid_caption"] == [1, 0, 0, 0, 0]
        assert {made.line()[field] for field in FIELDS.values()} == {"###"}
    for reply in ("<mask>", "[MASK]", "", "###"):
        (made,) = negatives("dog", backend=Saying(reply), types=("object",))
        assert made.reasons["object"] == generate.ONLY_A_MASK
    (made,) = negatives("a red dog", backend=Saying("<mask>", "cat"), types=("object",))
    assert made.texts == {"object": "a red cat"}  # a mask left in the text is refused, the next one is taken


def test_published_fault_masks_in_the_caption() -> None:
    (made,) = negatives("A <mask> of a <mask> man riding a horse")
    assert made.texts["relation"].count("<mask>") == 2
    assert made.texts["object"].startswith("A <mask> of a <mask> ")


def test_published_fault_the_guess_is_the_original() -> None:
    (made,) = negatives("A man.", backend=Saying("MAN", "man", "woman"), types=("object",))
    assert made.texts["object"] == "A woman."
    (made,) = negatives("A man.", backend=Saying("man"), types=("object",))
    assert made.reasons["object"] == generate.MENTIONED


def test_published_fault_unseeded() -> None:
    first, again = negatives(*CAPTIONS), negatives(*CAPTIONS)
    assert [made.line() for made in first] == [made.line() for made in again]
    other = negatives(*CAPTIONS, seed=1)
    assert [made.line() for made in first] != [made.line() for made in other]


def test_published_fault_true_attributes_and_verbs() -> None:
    # the other captions of the image say what is true of it
    for seed in range(30):
        (made,) = negatives(
            "a red bus",
            others=("a blue and red bus", "A green BUS"),
            seed=seed,
            types=("attribute", "object"),
        )
        assert made.texts["attribute"] not in {"a blue bus", "a green bus", "a crimson bus", "a colorful bus"}
    (made,) = negatives(
        "a man", backend=Saying("women", "girl", "dog"), others=("ladies",), types=("object",)
    )
    assert made.texts["object"] == "a dog"  # a lady is a woman, and may be called a girl
    (made,) = negatives("a man", backend=Saying("women"), others=("ladies",), types=("object",))
    assert made.reasons["object"] == generate.MENTIONED


def test_each_caption_depends_on_its_position_only() -> None:
    together = negatives(*CAPTIONS)
    for i, caption in enumerate(CAPTIONS):
        (alone,) = make_negatives([Row(i, f"{i}.jpg", caption)], BuiltinBackend(), Settings())
        assert alone.line() == together[i].line()


def test_types_do_not_depend_on_each_other() -> None:
    full = negatives(*CAPTIONS)
    for kind in TYPES:
        for one, made in zip(negatives(*CAPTIONS, types=(kind,)), full, strict=True):
            assert one.texts.get(kind) == made.texts.get(kind)
            assert set(one.reasons.values()) >= {NOT_ASKED}


@pytest.mark.parametrize("seed", range(5))
def test_every_negative_is_usable(seed: int) -> None:
    for made in negatives(*CAPTIONS, seed=seed):
        line = made.line()
        forms = [normal_form(text) for text in made.texts.values()]
        assert normal_form(line["caption"]) not in forms
        assert len(set(forms)) == len(forms)
        for i, kind in enumerate(TYPES):
            text = line[FIELDS[kind]]
            assert line["valid_caption"][i + 1] == int(text != "###")
            assert (kind in made.texts) != (kind in made.reasons)
            if text != "###":
                assert text[-1:] == line["caption"][-1:] or not line["caption"].endswith(".")
                assert text[0].isupper() == line["caption"][0].isupper()


def test_the_line_has_both_forms() -> None:
    (made,) = negatives("A red bus.", types=("attribute", "object"))
    line = made.line()
    assert line["image"] == "0.jpg" and line["caption"] == "A red bus."
    assert line["valid_caption"] == [1, 0, 1, 1, 0]
    assert line["negatives"] == [
        {"type": "relation", "text": "###", "valid": False},
        {"type": "attribute", "text": line["adj_aug_caption"]},
        {"type": "object", "text": line["noun_aug_caption"]},
        {"type": "action", "text": "###", "valid": False},
    ]
    made = Negatives(Row(0, 7, "a dog", (("image_id", 7), ("id", 3))))
    assert list(made.line().items())[:4] == [("image", 7), ("image_id", 7), ("id", 3), ("caption", "a dog")]


def test_duplicates_are_refused() -> None:
    # both the attribute and the object would become "a zorb car"
    (made,) = negatives("zorb red car", backend=Saying("zorb"), types=("attribute", "object"))
    assert made.reasons == {
        "relation": NOT_ASKED, "action": NOT_ASKED, "attribute": generate.MENTIONED, "object": generate.MENTIONED,
    }  # fmt: skip
    taken = generate.Taken("a red car")
    assert taken.add("a blue car") is None
    assert taken.add("A blue  car!") == generate.DUPLICATE
    assert taken.add("A RED CAR.") == generate.UNCHANGED
    assert taken.add("a <mask> car") == generate.ONLY_A_MASK
    assert taken.add("a green car") is None


def test_another_word_is_tried_when_one_has_no_replacement() -> None:
    backend = Saying()
    (made,) = negatives("a dog under a bridge by a house", backend=backend, types=("object",))
    assert sorted(lemma for _, lemma in backend.requests) == ["bridge", "dog", "house"]
    assert made.reasons["object"] == NO_REPLACEMENT


def test_numbers_and_forms_are_kept() -> None:
    for seed in range(20):
        (made,) = negatives("Two dogs were sleeping under the larger tables.", seed=seed)
        assert made.texts["attribute"] in {
            f"{number} dogs were sleeping under the larger tables."
            for number in ("Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
        } | {"Two dogs were sleeping under the smaller tables."}
        assert " were " in made.texts["action"]
        verb = made.texts["action"].split(" were ")[1].split(" ")[0]
        assert verb.endswith("ing") and verb != "sleeping"
