"""Words of the demo scenes: levels, hard negatives, prompts and the is-a tree."""

import re

import numpy as np
import pytest

from hypvl.data.demo.captions import (
    DIGIT_WORDS,
    caption_chain,
    digit_captions,
    evaluation_prompts,
    hard_negatives,
    is_a_tree,
    phrase,
    scene_captions,
)
from hypvl.data.demo.drawing import COLORS, SHAPES, DrawnObject
from hypvl.data.demo.scenes import Kind, heldout_combinations, make_scene, seen_combinations

RED = DrawnObject("circle", "red", "large", "plain", 16.0, 32.0, 14.0, 0.0)
BLUE = DrawnObject("square", "blue", "small", "striped", 48.0, 32.0, 8.0, 0.0)
ORANGE = DrawnObject("heart", "orange", "small", "dotted", 32.0, 32.0, 10.0, 0.0)


def test_chain_goes_from_general_to_specific() -> None:
    assert caption_chain([RED, BLUE], "left of") == [
        "a shape",
        "a circle",
        "a red circle",
        "a large red circle left of a small striped blue square",
    ]
    assert caption_chain([ORANGE], None)[2:] == ["an orange heart", "a small dotted orange heart"]


def test_captions_of_both_objects_at_the_middle_levels() -> None:
    captions = scene_captions([RED, BLUE], "left of")
    texts = {level: {c["text"] for c in captions if c["level"] == level} for level in (1, 2, 3, 4)}
    assert {"a circle", "a square", "a red shape", "a blue shape"} <= texts[2]
    assert {"a red circle", "a blue square"} <= texts[3]
    assert "a large red circle left of a small striped blue square" in texts[4]
    assert not any(word in text for text in texts[1] for word in (*COLORS, *SHAPES))
    assert not any(text in texts[level] for level in (2, 3, 4) for text in texts[level - 1])


def test_negatives_of_two_objects() -> None:
    negatives = hard_negatives([RED, BLUE], "left of", np.random.default_rng(0))
    assert {n["type"]: n["text"] for n in negatives} == {
        "attribute": "a large blue circle left of a small striped red square",
        "relation": "a large red circle right of a small striped blue square",
        "object": "a large red square left of a small striped blue circle",
    }


def test_negatives_of_one_object_change_one_word() -> None:
    true = phrase(ORANGE).split()
    for seed in range(20):
        for negative in hard_negatives([ORANGE], None, np.random.default_rng(seed)):
            changed = set(negative["text"].split()) ^ set(true)
            assert negative["text"] != phrase(ORANGE)
            assert len(changed - {"dotted"}) <= 2  # one word for another; plain leaves "dotted" out


@pytest.mark.parametrize("kind", ["single_seen", "single_heldout", "pair"])
def test_scenes_keep_their_word(kind: Kind) -> None:
    for index in range(60):
        scene = make_scene(kind, index, np.random.default_rng(index))
        assert len(scene.objects) == (2 if kind == "pair" else 1)
        assert scene.caption not in {n["text"] for n in scene.negatives}
        for thing in scene.objects:
            assert (thing.radius <= 13.0) == (thing.size == "small") or thing.radius == 13.0
            points = thing.outline()
            assert points.min() > -1.5
            assert points.max() < 65.5
        if kind == "pair":
            first, second = scene.objects
            assert first.shape != second.shape
            assert first.color != second.color
            true = {
                "left of": first.x < second.x - 20,
                "right of": first.x > second.x + 20,
                "above": first.y < second.y - 20,
                "below": first.y > second.y + 20,
            }
            assert true[str(scene.relation)]
            a, b = first.box(), second.box()
            assert min(a[2], b[2]) < max(a[0], b[0]) or min(a[3], b[3]) < max(
                a[1], b[1]
            )  # they do not overlap


def test_each_shape_and_each_color_is_held_out_once() -> None:
    heldout = heldout_combinations()
    assert sorted(shape for _, shape in heldout) == sorted(SHAPES)
    assert sorted(color for color, _ in heldout) == sorted(COLORS)
    assert len(seen_combinations()) == 42


def test_digit_captions_name_their_digit_alone() -> None:
    assert len({c["text"] for c in digit_captions(7)}) >= 12
    for digit, word in enumerate(DIGIT_WORDS):
        for caption in digit_captions(digit):
            named = set(re.findall(r"\d|" + "|".join(DIGIT_WORDS), str(caption["text"])))
            assert named <= {str(digit), word}
            assert bool(named) == (int(str(caption["level"])) > 1)
    assert "an eight" in {c["text"] for c in digit_captions(8)}


def test_prompts_name_their_class() -> None:
    prompts = evaluation_prompts()
    assert {task: len(names) for task, names in prompts.items()} == {"digits": 10, "color": 7, "shape": 7}
    for task in ("color", "shape"):
        for name, texts in prompts[task].items():
            assert all(re.search(rf"\b{name}\b", text) for text in texts)
    assert all("an orange shape" in t or "orange shape" in t for t in prompts["color"]["orange"])
    assert not any(
        "a orange" in t or "a eight" in t for p in prompts.values() for ts in p.values() for t in ts
    )


def test_tree_parents_are_one_level_up() -> None:
    tree = is_a_tree()
    for text, node in tree.items():
        for parent in node["parents"]:  # type: ignore[attr-defined]
            assert int(str(tree[parent]["level"])) == int(str(node["level"])) - 1, text
    assert tree["a red circle"]["parents"] == ["a circle", "a red shape"]
    assert tree["a large striped red circle"]["parents"] == ["a red circle"]
    assert len(tree) == 2 + 7 + 7 + 49 * 7 + 20
