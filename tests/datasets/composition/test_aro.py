import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.composition import aro
from hypvl.datasets.composition.choices import Choices
from hypvl.datasets.composition.word_order import SHUFFLES
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError, MissingDataError
from hypvl.evaluation.foil_accuracy import CaptionChoice
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.negatives.backends.taggers import SpacyTagger
from hypvl.negatives.tagging import Word
from tests.evaluation.fakes import RED, FakeModel, FakeTokenizer, image as pil_image
from tests.evaluation.miniatures.aro import NAME, case, make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path


def measured(data: Choices, **settings: Any) -> EvaluationResult:
    return CaptionChoice(data, encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer(), **settings)(
        FakeModel()
    )


def edit(path: Path, number: int, **changes: Any) -> None:
    content = json.loads(path.read_text())
    content[number] = {k: v for k, v in {**content[number], **changes}.items() if v is not None}
    path.write_text(json.dumps(content))


def test_relations_are_cut_to_their_box_and_mean_over_relations(root: Path) -> None:
    data = aro.relations(root / "aro")
    assert [choice.kind for choice in data.choices] == ["is on", "is above", "is above"]  # next to: left out
    assert data.choices[0].caption == "the red hat is on the dog"
    assert data.choices[0].foils == ("the blue dog is on the hat",)
    assert [tuple(data.images[choice.image][:, 3, 3]) for choice in data.choices] == [
        (255, 0, 0), (0, 255, 0), (0, 0, 255),
    ]  # fmt: skip
    assert data.keys[0] == f"{NAME} 0,0,10,12" and data.images[0].shape == (3, 12, 10)
    result = measured(data, main_metric="macro_accuracy", kinds="items")
    # "is on": 1 of 1 (red image, red caption); "is above": 1 of 2, since the image of the last is blue
    assert result.metrics == pytest.approx(
        {
            "accuracy": 200 / 3,
            "accuracy_chance": 50.0,
            "macro_accuracy": 75.0,
            "macro_accuracy_chance": 50.0,
        }
    )
    assert result.meta["left_out"] == result.meta["left_out_relations"] == 1
    assert (result.meta["kinds_in_mean"], result.meta["published_kinds"]) == (2, 48)


def test_relations_that_are_left_out_can_be_chosen(root: Path) -> None:
    data = aro.relations(root / "aro", left_out=["is above"])
    assert [choice.kind for choice in data.choices] == ["is on", "next to"]
    assert data.meta["left_out"] == 2


def test_published_list_is_sorted_and_has_the_symmetrical_ones() -> None:
    names = aro.published_left_out()
    assert names == sorted(set(names)) and {"next to", "near", "with", "close to"} < set(names)
    assert not {"to the left of", "to the right of", "on top of", "wearing", "behind", "below"} & set(names)


def test_attributes_count_in_the_mean_where_there_are_enough(root: Path) -> None:
    data = aro.attributes(root / "aro")
    assert data.means == {"macro_accuracy": ["red_old"]}
    result = measured(data, main_metric="macro_accuracy", kinds="items")
    assert result.metrics["macro_accuracy"] == 100.0
    assert result.metrics["accuracy"] == pytest.approx(100 * 25 / 26)
    assert result.items["kinds"] == ["green_wet", "red_old"] and result.items["kind_choices"] == [1, 25]
    assert measured(aro.attributes(root / "aro", min_cases=1)).metrics["macro_accuracy"] == 50.0
    with pytest.raises(DataError, match="no kind with 26 cases among the 26"):
        aro.attributes(root / "aro", min_cases=26)


def test_coco_order_by_hand(root: Path) -> None:
    data = aro.order(root / "coco" / "coco_karpathy_test.json")
    first = data.choices[0]
    assert first.caption == "a man rides a brown horse on the beach" and first.foil_kinds == SHUFFLES
    assert data.choices[1].caption == "the horse brown runs near a man"
    assert all(sorted(foil.split()) == sorted(first.caption.split()) for foil in first.foils)
    assert len(data.choices) == 4 and data.meta["without_foils"] == 1  # "dog" has no other order
    assert [choice.image for choice in data.choices] == [0, 0, 1, 1]
    assert data.keys[0] == "val2014/COCO_val2014_000000391895.jpg"


def test_a_bag_of_words_gets_nothing(root: Path) -> None:
    result = measured(aro.order(root / "coco" / "coco_karpathy_test.json"), kinds="items")
    assert result.metrics["accuracy"] == 0.0  # every option has the same words: ties
    assert result.metrics["accuracy_chance"] == pytest.approx(20.0)
    assert result.metrics["pairwise_accuracy_trigrams"] == 0.0
    assert result.metrics["pairwise_accuracy_trigrams_chance"] == 50.0


def test_order_depends_only_on_the_seed(root: Path) -> None:
    path = root / "coco" / "coco_karpathy_test.json"
    assert aro.order(path).choices == aro.order(path).choices
    assert aro.order(path, seed=1).choices != aro.order(path).choices


def test_images_of_order_may_be_in_another_folder(root: Path) -> None:
    path = root / "flickr30k" / "flickr30k_test.json"
    data = aro.order(path, images=root / "flickr30k" / "flickr30k_images")
    assert data.keys[0] == "flickr30k-images/391895.jpg" and data.images[0].shape == (3, 7, 9)
    with pytest.raises(
        MissingDataError, match=r"none of its 3 images is there, .*flickr30k-images/391895\.jpg"
    ):
        aro.order(path)
    moved = root / "moved.json"
    moved.write_text(path.read_text())
    with pytest.raises(MissingDataError, match="none of its 3 images"):
        aro.order(moved)
    assert aro.order(root / "coco" / "coco_karpathy_test.json", root=root / "coco").images[0].shape == (
        3,
        7,
        9,
    )


def test_orders_are_approximate_unless_spacy_finds_the_words(root: Path) -> None:
    path = root / "coco" / "coco_karpathy_test.json"
    assert "not found by spaCy" in aro.order(path).meta["approximate"]
    assert "approximate" in aro.order(path, tagger=lambda captions: [[] for _ in captions]).meta
    result = measured(aro.order(path), kinds="items")
    assert result.meta["approximate"] == aro.order(path).meta["approximate"]

    class Small(SpacyTagger):
        """Without the pipeline, which is a download."""

        def __init__(self) -> None:
            pass

        def __call__(self, captions: Sequence[str]) -> list[list[Word]]:
            return [[] for _ in captions]

    assert "approximate" not in aro.order(path, tagger=Small()).meta


def test_means_over_other_kinds_than_published_are_approximate(root: Path) -> None:
    assert (
        "over 3 kinds, the published one over 48"
        in aro.relations(root / "aro", left_out=[]).meta["approximate"]
    )
    for kind in range(45):
        edit_copy(root / "aro" / "visual_genome_relation.json", relation_name=f"kind {kind}")
    assert "approximate" not in aro.relations(root / "aro", left_out=[]).meta


def test_a_tagger_can_be_given(root: Path) -> None:
    data = aro.order(
        root / "coco" / "coco_karpathy_test.json", tagger=lambda captions: [[] for _ in captions]
    )
    assert data.choices[0].foil_kinds == SHUFFLES[1:]  # without nouns and adjectives there is nothing to swap


def edit_copy(path: Path, **changes: Any) -> None:
    """Append the first case of a file with changes."""
    cases = json.loads(path.read_text())
    path.write_text(json.dumps([*cases, {**cases[0], **changes}]))


def test_an_already_made_file_is_read_as_it_is(tmp_path: Path) -> None:
    pil_image(tmp_path / "a.png", RED)
    path = tmp_path / "made.json"
    options = ["A Dog bites.", "bites A Dog.", "Dog bites A.", "bites A Dog."]
    path.write_text(json.dumps([{"image_path": "a.png", "caption_options": options}]))
    assert "approximate" not in aro.order(path).meta
    (choice,) = aro.order(path).choices
    assert (choice.caption, choice.foils, choice.foil_kinds) == ("A Dog bites.", tuple(options[1:3]), ())
    path.write_text(json.dumps([{"image": "a.png", "caption_options": ["one"]}]))
    with pytest.raises(
        DataError, match=r"entry 0: expected a list of texts as caption_options; got \['one'\]"
    ):
        aro.order(path)


@pytest.mark.parametrize("read", [aro.relations, aro.attributes])
def test_missing_files_are_named(tmp_path: Path, read: Any) -> None:
    with pytest.raises(
        MissingDataError, match=r"visual_genome_\w+\.json: is not there .* put .*json and images of"
    ):
        read(tmp_path)
    with pytest.raises(MissingDataError, match=r"coco_karpathy_test\.json: is not there"):
        aro.order(tmp_path / "coco_karpathy_test.json")
    with pytest.raises(MissingDataError, match=r"mine\.json: is not there .* or a file of your own"):
        aro.order(tmp_path / "mine.json", download=True)


def test_missing_images_are_named(root: Path) -> None:
    (root / "aro" / "images" / NAME).unlink()
    with pytest.raises(MissingDataError, match=r"its only image is not there.*put ARO's images"):
        aro.relations(root / "aro")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"true_caption": None}, "entry 1: has no text 'true_caption'"),
        ({"bbox_w": "10"}, "entry 1: has no whole number 'bbox_w'; got '10'"),
        ({"bbox_h": float("nan")}, "entry 1: has no whole number 'bbox_h'"),
        ({"relation_name": None}, "entry 1: has no text 'relation_name'"),
        ({"image_path": 7}, "entry 1: has no text 'image_path'"),
    ],
)
def test_a_broken_case_is_named(root: Path, changes: dict[str, Any], message: str) -> None:
    edit(root / "aro" / "visual_genome_relation.json", 1, **changes)
    with pytest.raises(DataError, match=message):
        aro.relations(root / "aro")


def test_broken_attributes_and_files_are_named(root: Path) -> None:
    path = root / "aro" / "visual_genome_attribution.json"
    edit(path, 2, attributes="red_old")
    with pytest.raises(DataError, match="entry 2: has no pair of attributes; got 'red_old'"):
        aro.attributes(root / "aro")
    path.write_text(json.dumps({"0": case("red", "a", "b")}))
    with pytest.raises(DataError, match="expected a list of at least one entry"):
        aro.attributes(root / "aro")
    path.write_text("[3]")
    with pytest.raises(DataError, match="entry 0: expected an object; got 3"):
        aro.attributes(root / "aro")


def test_a_box_outside_its_image_is_counted_as_unreadable(root: Path) -> None:
    edit(root / "aro" / "visual_genome_relation.json", 0, bbox_x=500)
    data = aro.relations(root / "aro")
    encoding = Encoding(num_workers=0, max_bad_fraction=0.5)
    result = CaptionChoice(data, encoding=encoding, tokenizer=FakeTokenizer())(FakeModel())
    assert result.meta["unreadable"] == 1 and "has no pixels in its box" in result.meta["unreadable_first"][0]
    assert result.metrics["accuracy_is on"] == 0.0
