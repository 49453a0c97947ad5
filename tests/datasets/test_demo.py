"""Readers of the demo's data."""

import json
import tarfile
from pathlib import Path

import pytest

from hypvl.data.demo.build import DemoArguments, make_demo_data
from hypvl.datasets.composition.choices import Choice
from hypvl.datasets.demo import (
    DEMO_CLASSIFICATION_SETS,
    demo_chains,
    demo_choices,
    demo_classification_set,
    demo_objects,
    demo_retrieval_set,
    demo_training_set,
)
from hypvl.errors import DataError, MissingDataError
from hypvl.io.tar import add_member
from tests.evaluation.fakes import BLUE, RED, image as pil_image


def test_classification_sets_have_their_classes_and_prompts_in_a_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"hypvl demo-data"):
        demo_classification_set("digits", root=tmp_path)
    folder = tmp_path / "eval" / "digits"
    pil_image(folder / "one" / "a.png", RED)
    (folder / "two").mkdir()
    prompts = {"one": ["the one"], "two": ["a two", "2"]}
    (folder / "classes.json").write_text(json.dumps({"classes": ["one", "two"], "prompts": prompts}))
    dataset = demo_classification_set("digits", root=tmp_path)
    assert dataset.classes == ["one", "two"] and dataset.prompts == prompts and dataset.labels == [0]
    (folder / "classes.json").write_text('{"classes": []}')
    with pytest.raises(DataError, match=r"classes\.json: lacks 'prompts'"):
        demo_classification_set("digits", root=tmp_path)


@pytest.mark.slow
def test_readers_read_what_the_generator_writes(tmp_path: Path) -> None:
    make_demo_data(tmp_path / "demo", DemoArguments(num_train=12, num_test=24))
    for name in DEMO_CLASSIFICATION_SETS:
        dataset = demo_classification_set(name, root=tmp_path / "demo")
        assert dataset.prompts is not None and set(dataset.prompts) == set(dataset.classes)
        assert dataset[0][0].shape == (3, 64, 64)
        assert len(dataset) > 300 if name == "digits" else len(dataset) == 6
        train = demo_training_set(name, root=tmp_path / "demo")
        assert train.classes == dataset.classes and train[0][0].shape == (3, 64, 64)
        assert len(train) > 1400 if name == "digits" else len(train) == 7  # scenes of one object, of 12
        part = train.keys[0].split("/")[1]
        assert part.startswith("digit" if name == "digits" else "scene")
    retrieval = demo_retrieval_set(root=tmp_path / "demo")
    assert len(retrieval.images) == len(set(retrieval.captions)) == 12
    assert retrieval.images[0].shape == (3, 64, 64)


def test_training_images_have_the_labels_of_the_test_set(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name, classes in {"digits": ["one", "two"], "scenes_shape_seen": ["circle", "star"]}.items():
        folder = tmp_path / "eval" / name
        folder.mkdir(parents=True)
        (folder / "classes.json").write_text(json.dumps({"classes": classes, "prompts": {}}))
    pil_image(tmp_path / "a.png", RED)
    png = (tmp_path / "a.png").read_bytes()
    star, circle = ({"shape": shape, "color": "red"} for shape in ("star", "circle"))
    scenes = [{"objects": [star]}, {"objects": [star, circle]}, {"objects": [circle]}]
    for kind, notes in {"digits": [{"digit": 2}, {"digit": 1}], "scenes": scenes}.items():
        with tarfile.open(tmp_path / "train" / f"{kind}-00000.tar", "w") as archive:
            for number, note in enumerate(notes):
                add_member(archive, f"{number}.png", png)
                add_member(archive, f"{number}.json", json.dumps(note).encode())
    assert demo_training_set("digits", root=tmp_path).labels == [1, 0]
    shapes = demo_training_set("scenes_shape_seen", root=tmp_path)
    assert shapes.labels == [1, 0]  # a scene of two objects has no one label
    assert [key.split("/")[1] for key in shapes.keys] == ["0", "2"] and shapes[0][0].shape == (3, 7, 9)
    with tarfile.open(tmp_path / "train" / "digits-00000.tar", "w") as archive:
        add_member(archive, "0.png", png)
        add_member(archive, "0.json", b'{"digit": 3}')
    with pytest.raises(DataError, match=r"digits-00000\.tar/0: cannot be used"):
        demo_training_set("digits", root=tmp_path)


def test_a_broken_file_says_what_makes_it_anew(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "hierarchy.json").write_text("{")
    with pytest.raises(DataError, match=r"is not valid JSON .*; make it with hypvl demo-data"):
        demo_chains(tmp_path)


def test_a_missing_retrieval_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"hypvl demo-data"):
        demo_retrieval_set(root=tmp_path)


def test_choices_of_scenes_and_a_broken_file(tmp_path: Path) -> None:
    pil_image(tmp_path / "scenes" / "a.png", RED)
    scene = {
        "image": "scenes/a.png",
        "caption": "a red circle",
        "negatives": [
            {"type": "attribute", "text": "a blue circle"},
            {"type": "object", "text": "a red star"},
        ],
    }
    path = tmp_path / "hierarchy.json"
    path.write_text(json.dumps({"scenes": [scene]}))
    result = demo_choices(path)
    assert list(result.choices) == [
        Choice(0, "a red circle", ("a blue circle",), "attribute"),
        Choice(0, "a red circle", ("a red star",), "object"),
    ]
    assert result.images[0].shape == (3, 7, 9) and result.keys == ["a"]
    with pytest.raises(MissingDataError, match=r"hypvl demo-data"):
        demo_choices(tmp_path / "other.json")
    path.write_text(json.dumps({"scenes": [{"image": "scenes/a.png"}]}))
    with pytest.raises(DataError, match=r"lacks 'negatives'; expected scenes as hypvl demo-data"):
        demo_choices(path)


def test_objects_are_colour_and_shape(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    for name, color in (("a", RED), ("b", BLUE), ("c", RED)):
        pil_image(root / "eval" / "scenes" / f"{name}.png", color)
    scenes = [
        {"image": "scenes/a.png", "kind": "single_seen", "chain": ["a shape", "a ring", "a red ring", "..."]},
        {"image": "scenes/b.png", "kind": "pair", "chain": ["a shape", "a star", "a blue star", "..."]},
        {
            "image": "scenes/c.png",
            "kind": "single_heldout",
            "chain": ["a shape", "a cross", "a red cross", "."],
        },
    ]
    (root / "eval" / "hierarchy.json").write_text(json.dumps({"scenes": scenes}))
    result = demo_objects(root)
    assert (list(result.classes), list(result.labels)) == (["a red cross", "a red ring"], [1, 0])
    assert result[1][1] == 0 and list(result.keys) == ["a", "c"]
    with pytest.raises(DataError, match=r"make it with hypvl demo-data"):
        demo_objects(tmp_path)


def test_chains_of_scenes(tmp_path: Path) -> None:
    chain = ["a shape", "a circle", "a red circle"]
    pil_image(tmp_path / "eval" / "scenes" / "a.png", RED)
    path = tmp_path / "eval" / "hierarchy.json"
    path.write_text(json.dumps({"scenes": [{"image": "scenes/a.png", "chain": chain}]}))
    result = demo_chains(tmp_path)
    assert (result.chains, result.keys) == ([chain], ["scenes/a.png"])
    path.write_text(json.dumps({"scenes": [{"image": "scenes/a.png"}]}))
    with pytest.raises(DataError, match="lacks 'chain'"):
        demo_chains(tmp_path)
