"""Words of the demo data: captions at four levels, evaluation prompts, hard negatives and the is-a tree.

Level 1 is the most general, level 4 the most specific::

    a shape -> a circle -> a red circle -> a large red circle left of a small striped blue square

Digits have the levels 1 to 3: a handwritten digit -> the digit 7 -> a seven in pencil. Prompts of the
evaluation never occur as a training caption.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hypvl.data.demo.drawing import COLORS, SHAPES, SIZES, TEXTURES, DrawnObject

RELATIONS: dict[str, str] = {  # each with its opposite
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
}  # fmt: skip
DIGIT_WORDS: tuple[str, ...] = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip
LEVELS = (1, 2, 3, 4)

_FRAMES = ("{}", "a drawing of {}", "a picture of {}", "there is {}", "we see {}")
_COLORED = (*(frame.format("a {color} {shape}") for frame in _FRAMES),
            "a {shape} in {color}", "a {shape} that is {color}")  # fmt: skip
DIGIT_GENERAL: tuple[str, ...] = ("a handwritten digit", "a number", "a digit")
DIGIT_TEMPLATES: tuple[tuple[int, str], ...] = (
    (2, "the digit {digit}"),
    (2, "the number {digit}"),
    (2, "the digit {word}"),
    (2, "the number {word}"),
    (2, "a {word}"),
    (2, "a picture of a {word}"),
    (2, "there is a {digit}"),
    (2, "we see the digit {digit}"),
    (3, "a handwritten {word}"),
    (3, "a handwritten {digit}"),
    (3, "the digit {digit} in pencil"),
    (3, "a {word} in pencil"),
    (3, "a drawing of the number {word}"),
    (3, "a {digit} written by hand"),
    (3, "the handwritten number {digit}"),
    (3, "a scan of a handwritten {word}"),
)
_DIGIT_PROMPTS = (
    "a picture of the digit {digit}",
    "a picture of a handwritten {word}",
    "there is the number {word}",
    "the digit {word} written by hand",
)
_SHAPE_PROMPTS = ("this is a {}", "a {} on paper", "a simple drawing of a {}", "a small picture of a {}")
_COLOR_PROMPTS = tuple(prompt.format("{} shape") for prompt in _SHAPE_PROMPTS)


def phrase(item: DrawnObject) -> str:
    """The object with its attributes, plain texture unsaid: "a small striped blue square"."""
    texture = "" if item.texture == "plain" else f"{item.texture} "
    return f"a {item.size} {texture}{item.color} {item.shape}"


def full_caption(objects: Sequence[DrawnObject], relation: str | None) -> str:
    """The level-4 caption of one object, or of two and their relation."""
    if len(objects) == 1:
        return phrase(objects[0])
    return f"{phrase(objects[0])} {relation} {phrase(objects[1])}"


def caption_chain(objects: Sequence[DrawnObject], relation: str | None) -> list[str]:
    """The four captions of a scene about its first object, from general to specific."""
    first = objects[0]
    colored = _articles(f"a {first.color} {first.shape}")
    return ["a shape", f"a {first.shape}", colored, full_caption(objects, relation)]


def scene_captions(objects: Sequence[DrawnObject], relation: str | None) -> list[dict[str, object]]:
    """Every training caption of a scene, ``{"text", "level"}``, from general to specific.

    Both objects of a scene are described at the levels 2 and 3, for either may be meant. Level 2 says the
    shape more often than the colour: colour is learned within a hundred steps, shape is what takes long.
    """
    captions: list[tuple[int, str]] = [(1, frame.format("a shape")) for frame in _FRAMES[:3]]
    for item in objects:
        captions += [(2, frame.format(f"a {item.shape}")) for frame in _FRAMES]
    for item in objects:
        captions += [(2, frame.format(f"a {item.color} shape")) for frame in _FRAMES[:2]]
    for item in objects:
        captions += [(3, text.format(color=item.color, shape=item.shape)) for text in _COLORED]
    captions += [(4, frame.format(full_caption(objects, relation))) for frame in _FRAMES[:3]]
    return [{"text": _articles(text), "level": level} for level, text in captions]


def digit_captions(digit: int) -> list[dict[str, object]]:
    """Every training caption of a digit, ``{"text", "level"}``, from general to specific."""
    captions = [(1, text) for text in DIGIT_GENERAL]
    captions += [(level, _fill_digit(text, digit)) for level, text in DIGIT_TEMPLATES]
    return [{"text": text, "level": level} for level, text in captions]


def hard_negatives(
    objects: Sequence[DrawnObject], relation: str | None, rng: np.random.Generator
) -> list[dict[str, str]]:
    """False captions one change away from the level-4 caption: ``{"type", "text"}``.

    Two objects: their colours exchanged (attribute), the opposite relation (relation), their shapes exchanged
    (object). One object: another colour, another size or texture (attribute), another shape (object).
    """
    if len(objects) == 2:
        a, b = objects
        colors = [replace(a, color=b.color), replace(b, color=a.color)]
        shapes = [replace(a, shape=b.shape), replace(b, shape=a.shape)]
        return [
            {"type": "attribute", "text": full_caption(colors, relation)},
            {"type": "relation", "text": full_caption(objects, RELATIONS[str(relation)])},
            {"type": "object", "text": full_caption(shapes, relation)},
        ]
    item = objects[0]
    return [
        {"type": "attribute", "text": phrase(replace(item, color=_other(item.color, tuple(COLORS), rng)))},
        {"type": "attribute", "text": phrase(replace(item, size=_other(item.size, SIZES, rng)))},
        {"type": "attribute", "text": phrase(replace(item, texture=_other(item.texture, TEXTURES, rng)))},
        {"type": "object", "text": phrase(replace(item, shape=_other(item.shape, SHAPES, rng)))},
    ]


def evaluation_prompts() -> dict[str, dict[str, list[str]]]:
    """Prompts of the zero-shot sets, none of them a training caption: task -> class -> prompts."""
    return {
        "digits": {
            word: [_fill_digit(text, digit) for text in _DIGIT_PROMPTS]
            for digit, word in enumerate(DIGIT_WORDS)
        },
        "color": {name: [_articles(text.format(name)) for text in _COLOR_PROMPTS] for name in COLORS},
        "shape": {name: [text.format(name) for text in _SHAPE_PROMPTS] for name in SHAPES},
    }


def is_a_tree() -> dict[str, dict[str, object]]:
    """The is-a relation of the canonical captions: text -> ``{"level", "parents"}``.

    A red circle is a circle first and a red shape second: following the first parent gives a tree.
    """
    tree: dict[str, dict[str, object]] = {
        text: {"level": 1, "parents": []} for text in ("a shape", "a handwritten digit")
    }
    tree |= {f"a {shape}": {"level": 2, "parents": ["a shape"]} for shape in SHAPES}
    tree |= {_articles(f"a {color} shape"): {"level": 2, "parents": ["a shape"]} for color in COLORS}
    for shape in SHAPES:
        for color in COLORS:
            colored = _articles(f"a {color} {shape}")
            tree[colored] = {"level": 3, "parents": [f"a {shape}", _articles(f"a {color} shape")]}
            for size in SIZES:
                for texture in TEXTURES:
                    text = phrase(DrawnObject(shape, color, size, texture, 0.0, 0.0, 1.0, 0.0))
                    tree[text] = {"level": 4, "parents": [colored]}
    for digit, word in enumerate(DIGIT_WORDS):
        tree[f"the digit {digit}"] = {"level": 2, "parents": ["a handwritten digit"]}
        tree[_articles(f"a {word} in pencil")] = {"level": 3, "parents": [f"the digit {digit}"]}
    return tree


def _fill_digit(text: str, digit: int) -> str:
    return _articles(text.format(digit=digit, word=DIGIT_WORDS[digit]))


def _articles(text: str) -> str:
    """ "an" before orange, eight and 8; every other noun and adjective of the demo takes "a"."""
    return re.sub(r"\ba (?=orange\b|eight\b|8\b)", "an ", text)


def _other(value: str, options: tuple[str, ...], rng: np.random.Generator) -> str:
    rest = [option for option in options if option != value]
    return rest[int(rng.integers(len(rest)))]
