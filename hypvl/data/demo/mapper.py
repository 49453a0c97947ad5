"""Which caption of a demo sample a training step uses, and which box, negatives and short caption with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.data.boxes import Boxes, box_fields, check_boxes, choose_boxes, cut_out, read_box
from hypvl.data.demo.captions import DIGIT_WORDS, LEVELS, scene_captions
from hypvl.data.demo.drawing import COLORS, SHAPES, DrawnObject
from hypvl.data.mappers import find_image, read_json
from hypvl.data.sample import BadSample, caption_text
from hypvl.io.images import ImageError, decode_image

#: What ``labels`` tell apart: digits, and scenes of one object by its colour and shape.
DEMO_CLASSES: tuple[str, ...] = (
    *DIGIT_WORDS,
    *(f"{color} {shape}" for color in COLORS for shape in SHAPES),
)
#: The order of ``negative_text`` and of the columns of ``negative_mask``.
NEGATIVE_TYPES = ("relation", "attribute", "object")
_BOX_CAPTION_LEVEL = 2  # what a digit, which has no boxes, is called as a box of its own
_EVENLY = (1.0,) * len(LEVELS)


@configurable("dataset")
@dataclass(frozen=True)
class DemoMapper:
    """Draws the caption of a training step from those of a demo sample: first its level, then one of it.

    The switches add fields of the batch. Each draws from a generator of its own, so that none changes what the
    others draw.

    Args:
        level_weights: relative frequency of the levels 1 (general) to 4 (specific); a level the sample lacks
            (digits have no level 4) is left out and the others keep their proportions.
        boxes: also ``box_image`` and ``box_text``, images of boxes of the sample and their phrases. True or
            ``"one"``: one, drawn evenly; a digit has no boxes: its whole image and one of its level-2 captions.
            ``"first"`` or ``"random"``: at most ``max_boxes``; ``"all"``; then there are ``box_owner`` and
            ``box_corners`` too, see :func:`hypvl.data.boxes.box_fields`, and a digit has none.
        negatives: also ``negative_text``, three texts in the order of :data:`NEGATIVE_TYPES` (one drawn where a
            type has several), and ``negative_mask``, (3,) bool. Where a type is absent the mask is False and the
            text is the caption itself. The negatives of a scene are one change away from its full level-4
            caption, so that with this switch this is the caption, whatever ``level_weights`` says; digits have
            no negatives and keep theirs.
        short: also ``short_text``, a caption of a more general level than the caption's: the level is drawn
            evenly, then one of it. The sample's most general level is left out for the caption itself.
        labels: also ``labels``, the place of the sample in :data:`DEMO_CLASSES`; -1 for a scene of two objects.
        box_level_weights: only with ``boxes``: draw ``box_text`` from the captions of the boxed object alone, its
            level by these relative frequencies, in place of its phrase ("a large red circle"); of a digit from
            its captions.
        max_boxes: most boxes for ``"first"`` and ``"random"``, at least 1; None for the others.

    Raises:
        ValueError: for weights that are not four non-negative numbers with a positive sum, box levels without
            boxes, or a number of boxes that does not go with the choice.
    """

    level_weights: tuple[float, float, float, float] = (0.05, 0.35, 0.35, 0.25)
    boxes: bool | Boxes = False
    negatives: bool = False
    short: bool = False
    box_level_weights: tuple[float, float, float, float] | None = None
    labels: bool = False
    max_boxes: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.boxes, bool):
            one_of("boxes", self.boxes, Boxes)
        if self._boxes is not None:
            check_boxes(self._boxes, self.max_boxes)
        elif self.max_boxes is not None:
            raise ValueError(f"max_boxes: got {self.max_boxes}, but boxes is False; set it.")
        object.__setattr__(self, "level_weights", _weights("level_weights", self.level_weights))
        if self.box_level_weights is not None:
            if not self.boxes:
                raise ValueError(
                    f"box_level_weights is {self.box_level_weights}, but boxes is False; set it."
                )
            weights = _weights("box_level_weights", self.box_level_weights)
            object.__setattr__(self, "box_level_weights", weights)

    @property
    def _boxes(self) -> Boxes | None:
        if isinstance(self.boxes, bool):
            return "one" if self.boxes else None
        return self.boxes

    def __repr__(self) -> str:
        # Part of the data's fingerprint: a switch that is off is not named, so that older runs resume.
        parts = [f"level_weights={self.level_weights}"]
        if self._boxes in ("first", "random", "all"):
            parts.append(f"boxes={self.boxes!r}, max_boxes={self.max_boxes}")
        elif self._boxes is not None:
            parts.append("boxes=True")
        parts += [f"{name}=True" for name in ("negatives", "short", "labels") if getattr(self, name)]
        if self.box_level_weights is not None:
            parts.append(f"box_level_weights={self.box_level_weights}")
        return f"DemoMapper({', '.join(parts)})"

    def __call__(
        self, key: str, members: Mapping[str, bytes], generator: np.random.Generator
    ) -> dict[str, Any]:
        """``image``, ``caption`` and what the switches add. Raises BadSample where one is missing or broken."""
        notes = read_json(key, members)
        by_level = _captions(key, notes)
        levels = [level for level in by_level if not self.short or level > min(by_level)]
        if by_level and not levels:
            raise BadSample(key, f"no caption more general than another, it has levels {sorted(by_level)}")
        level = _draw_level(key, levels, self.level_weights, generator)
        caption = caption_text(key, by_level[level], "captions", generator)
        negatives = _negatives(key, notes) if self.negatives else {}
        if negatives:
            level, caption = LEVELS[-1], caption_text(key, notes.get("caption"), "caption", generator)
        image = find_image(key, members)
        fields: dict[str, Any] = {"image": image, "caption": caption}
        if self.labels:
            fields["labels"] = _label(key, notes)
        if not (self.boxes or self.negatives or self.short):
            return fields
        box_draws, negative_draws, short_draws = generator.spawn(3)
        if self._boxes is not None:
            fields |= self._box_fields(key, notes, image, by_level, self._boxes, box_draws)
        if self.negatives:
            texts = [negatives.get(name, [caption]) for name in NEGATIVE_TYPES]
            fields["negative_text"] = [some[int(negative_draws.integers(len(some)))] for some in texts]
            fields["negative_mask"] = torch.tensor([name in negatives for name in NEGATIVE_TYPES])
        if self.short:
            general = _draw_level(key, [other for other in by_level if other < level], _EVENLY, short_draws)
            fields["short_text"] = caption_text(key, by_level[general], "captions", short_draws)
        return fields

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that ``labels`` say; empty without labels."""
        return DEMO_CLASSES if self.labels else ()

    def _box_fields(
        self,
        key: str,
        notes: Mapping[str, Any],
        image: bytes,
        by_level: dict[int, list[str]],
        boxes: Boxes,
        generator: np.random.Generator,
    ) -> dict[str, Any]:
        """What ``boxes`` adds; of one box of a sample without any, the whole image."""
        weights, entries = self.box_level_weights, notes.get("boxes") or []
        if boxes == "one" and not entries:
            texts = {k: v for k, v in by_level.items() if weights is not None or k == _BOX_CAPTION_LEVEL}
            return {"box_image": image, "box_text": self._box_text(key, texts, generator)}
        if not isinstance(entries, list):
            raise BadSample(key, "boxes is not a list of {box: [left, top, right, bottom], phrase}")
        chosen = choose_boxes(len(entries), boxes=boxes, max_boxes=self.max_boxes, generator=generator)
        whole = _decoded(key, image) if chosen else None
        images, phrases, places = [], [], []
        for each in chosen:
            corners, phrase = read_box(key, entries, each, generator)
            assert whole is not None
            images.append(cut_out(whole, corners))
            texts = {LEVELS[-1]: [phrase]} if weights is None else _object_captions(key, notes, each)
            phrases.append(self._box_text(key, texts, generator))
            places.append(corners)
        return box_fields(images, phrases, places, boxes=boxes)

    def _box_text(self, key: str, texts: Mapping[int, list[str]], generator: np.random.Generator) -> str:
        weights = _EVENLY if self.box_level_weights is None else self.box_level_weights
        return caption_text(
            key, texts[_draw_level(key, list(texts), weights, generator)], "box text", generator
        )


def _label(key: str, notes: Mapping[str, Any]) -> int:
    """The class of a sample, -1 where it has none."""
    try:
        if "digit" in notes:
            return DEMO_CLASSES.index(DIGIT_WORDS[notes["digit"]])
        objects = notes["objects"]
        return DEMO_CLASSES.index(f"{objects[0]['color']} {objects[0]['shape']}") if len(objects) == 1 else -1
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadSample(key, "neither digit nor objects say its class") from error


def _weights(name: str, given: Sequence[float]) -> tuple[float, ...]:
    weights = tuple(number(name, w, least=0) for w in given)  # configs hand over lists
    if len(weights) != len(LEVELS) or not 0 < sum(weights) < float("inf"):
        raise ValueError(
            f"{name} is {given}; expected four numbers of 0 or more, one for each of the levels 1 to 4, with a "
            "positive sum."
        )
    return weights


def _draw_level(
    key: str, there: Sequence[int], weights: Sequence[float], generator: np.random.Generator
) -> int:
    levels = [level for level in LEVELS if level in there and weights[level - 1] > 0]
    if not levels:
        raise BadSample(key, f"no caption of a level with weight, it has levels {sorted(there)}")
    shares = np.array([weights[level - 1] for level in levels])
    return levels[int(generator.choice(len(levels), p=shares / shares.sum()))]


def _captions(key: str, notes: Mapping[str, Any]) -> dict[int, list[str]]:
    """The captions of each level."""
    by_level: dict[int, list[str]] = {}
    try:
        for entry in notes["captions"]:
            by_level.setdefault(int(entry["level"]), []).append(entry["text"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadSample(key, "captions is not a list of {text, level}") from error
    return by_level


def _negatives(key: str, notes: Mapping[str, Any]) -> dict[str, list[str]]:
    """The false captions of each type; none for a digit."""
    by_type: dict[str, list[str]] = {}
    try:
        for entry in notes.get("negatives", []):
            name, text = entry["type"], entry["text"]
            if name not in NEGATIVE_TYPES or not isinstance(text, str) or not text:
                raise ValueError(name)
            by_type.setdefault(name, []).append(text)
    except (KeyError, TypeError, ValueError) as error:
        raise BadSample(key, "negatives is not a list of {type, text}") from error
    return by_type


def _object_captions(key: str, notes: Mapping[str, Any], number: int) -> dict[int, list[str]]:
    """The captions, by level, of a scene that shows this object alone."""
    try:
        item = notes["objects"][number]
        shown = DrawnObject(item["shape"], item["color"], item["size"], item["texture"], 0.0, 0.0, 1.0, 0.0)
    except (KeyError, TypeError, IndexError) as error:
        raise BadSample(key, "objects is not a list of {shape, color, size, texture}, one a box") from error
    return _captions(key, {"captions": scene_captions([shown], None)})


def _decoded(key: str, image: bytes) -> Tensor:
    try:
        return decode_image(image)
    except ImageError as error:
        raise BadSample(key, f"cannot cut a box out of the image ({error})") from error
