"""Samples the demo scenes: which objects, where, with which words.

One colour per shape is held out: its combination never occurs in training, neither alone nor in a pair, so
that attribute accuracy on it measures whether colour and shape were learned apart.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from hypvl.checks import one_of
from hypvl.data.demo.captions import (
    RELATIONS,
    caption_chain,
    full_caption,
    hard_negatives,
    phrase,
    scene_captions,
)
from hypvl.data.demo.drawing import COLORS, SHAPES, SIZE, SIZES, TEXTURES, DrawnObject, draw_scene

Kind = Literal["single_seen", "single_heldout", "pair"]
SINGLE_RADIUS = {"small": (11.0, 13.0), "large": (19.0, 25.0)}
PAIR_RADIUS = {"small": (8.5, 10.5), "large": (13.0, 15.0)}


@dataclass(frozen=True)
class Scene:
    """One drawn image with everything that is known about it."""

    image: Image.Image
    kind: Kind
    objects: tuple[DrawnObject, ...]
    relation: str | None
    negatives: tuple[dict[str, str], ...]

    @property
    def caption(self) -> str:
        """The most specific (level-4) caption."""
        return full_caption(self.objects, self.relation)

    def record(self) -> dict[str, object]:
        """The JSON of a sample; boxes are fractions of the image, left, top, right, bottom."""
        return {
            "caption": self.caption,
            "subreddit": "drawings",
            "kind": self.kind,
            "captions": scene_captions(self.objects, self.relation),
            "chain": caption_chain(self.objects, self.relation),
            "boxes": [{"box": item.box(), "phrase": phrase(item)} for item in self.objects],
            "negatives": list(self.negatives),
            "objects": [
                {"shape": o.shape, "color": o.color, "size": o.size, "texture": o.texture}
                for o in self.objects
            ],
            "relation": self.relation,
        }


def heldout_combinations() -> list[tuple[str, str]]:
    """The (colour, shape) pairs never seen in training: every shape once, every colour once."""
    colors = tuple(COLORS)
    return [(colors[(3 * i + 1) % len(colors)], shape) for i, shape in enumerate(SHAPES)]


def seen_combinations() -> list[tuple[str, str]]:
    """The (colour, shape) pairs of the training scenes."""
    heldout = set(heldout_combinations())
    return [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in heldout]


def make_scene(kind: Kind, index: int, rng: np.random.Generator) -> Scene:
    """Draw one scene; ``index`` walks through the combinations, so that every one is equally frequent."""
    one_of("kind", kind, Kind)
    objects: tuple[DrawnObject, ...]
    if kind == "pair":
        objects, relation = _pair(index, rng)
    else:
        combinations = seen_combinations() if kind == "single_seen" else heldout_combinations()
        color, shape = combinations[index % len(combinations)]
        objects, relation = (_single(color, shape, rng),), None
    negatives = tuple(hard_negatives(objects, relation, rng))
    return Scene(draw_scene(list(objects), rng), kind, objects, relation, negatives)


def _single(color: str, shape: str, rng: np.random.Generator) -> DrawnObject:
    size = _pick(SIZES, rng)
    radius = float(rng.uniform(*SINGLE_RADIUS[size]))
    free = SIZE / 2 - 1.15 * radius - 1.0
    x, y = SIZE / 2 + rng.uniform(-free, free, size=2)
    return _object(shape, color, size, (float(x), float(y)), radius, rng)


def _pair(index: int, rng: np.random.Generator) -> tuple[tuple[DrawnObject, DrawnObject], str]:
    """Two objects that differ in shape and in colour, and the relation of the first to the second."""
    combinations = seen_combinations()
    color, shape = combinations[index % len(combinations)]
    others = [pair for pair in combinations if pair[0] != color and pair[1] != shape]
    other_color, other_shape = others[int(rng.integers(len(others)))]
    relation = _pick(tuple(RELATIONS), rng)
    near, far = (SIZE * v + rng.uniform(-1.0, 1.0) for v in (0.26, 0.74))
    along = (near, far) if relation in ("left of", "above") else (far, near)
    drawn = []
    for place, name, tint in zip(along, (shape, other_shape), (color, other_color), strict=True):
        size = _pick(SIZES, rng)
        radius = float(rng.uniform(*PAIR_RADIUS[size]))
        across = SIZE / 2 + rng.uniform(-9.0, 9.0)
        centre = (place, across) if relation.endswith("of") else (across, place)
        drawn.append(_object(name, tint, size, (float(centre[0]), float(centre[1])), radius, rng))
    return (drawn[0], drawn[1]), relation


def _object(
    shape: str, color: str, size: str, centre: tuple[float, float], radius: float, rng: np.random.Generator
) -> DrawnObject:
    texture = _pick(TEXTURES, rng)
    angle = float(rng.uniform(-0.22, 0.22))
    return DrawnObject(shape, color, size, texture, *centre, radius, angle)


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
