"""Rows of a table with hard negatives: false captions, one per type, and which of them are valid."""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from hypvl.allowlist import configurable
from hypvl.checks import natural_number, one_of
from hypvl.data.sample import BadSample, caption_text
from hypvl.data.tokenizer import is_blank

InvalidText: TypeAlias = Literal["empty", "caption"]
#: Types of the published negatives, in the order of their columns.
NEGATIVE_TYPES = ("relation", "attribute", "object", "action")
#: Type -> the published field with its text.
FIELDS = {
    "relation": "relation_aug_caption",
    "attribute": "adj_aug_caption",
    "object": "noun_aug_caption",
    "action": "verb_aug_caption",
}
#: Other names of types.
ALIASES = {"adj": "attribute", "adjective": "attribute", "noun": "object", "verb": "action"}
_NO_TEXT = "###"  # what the published generator writes when it has no negative
_UNFILLED = "<mask>"

# How a field of a pattern is written: no more than 99 characters, and not as long as another field says.
_FORMAT = re.compile(r"[^{}\d]{0,4}0?\d{0,2}(?:\.\d{1,2})?[a-zA-Z]?")


@configurable("dataset")
@dataclass(frozen=True)
class HardNegativeMapper:
    """``image``, ``caption``, ``negative_text`` (K texts) and ``negative_mask`` ((K,) bool) of a row.

    Rows are JSON objects of either form:

    - the published one, ``{"image_id", "caption", "relation_aug_caption", "adj_aug_caption", "noun_aug_caption",
      "verb_aug_caption", "valid_caption": [5 flags]}``, the first flag being the caption's;
    - a general one, ``{"image", "caption", "negatives": [{"type", "text"}, ...]}`` with any types; where a type has
      several texts one is drawn, where it has none it is invalid. An entry may have a flag ``valid``, too.

    A negative is also invalid, whatever its flag says, when it is ``###``, blank, still has a ``<mask>`` in it, or
    has the words of the caption. The text of an invalid one is never used as it is, see ``invalid_text``.

    Args:
        types: Of the K negatives, in order; ``adj``, ``noun`` and ``verb`` are other names of ``attribute``,
            ``object`` and ``action``. Negatives of other types are left out.
        image_pattern: Image path made of a row's fields, such as ``"COCO_train2014_{image_id:012d}.jpg"``; None: the
            row's ``image``, or else its ``image_path``.
        invalid_text: Text in the place of an invalid negative: ``"empty"`` means nothing and so hurts nothing when a
            loss takes invalid negatives for negatives, as published; ``"caption"`` costs no sequence length, but then
            losses must mask it: unmasked it would be pushed away from its own image.

    Raises:
        ValueError: for no types, a type twice, or a pattern that cannot be one.

    Source: fields of CE-CLIP (Zhang et al. 2024, arXiv 2306.08832).
    Differs: the published loader keeps the text ``###``; and unchanged captions marked valid.
    """

    types: Sequence[str] = NEGATIVE_TYPES
    image_pattern: str | None = None
    invalid_text: InvalidText = "empty"

    def __post_init__(self) -> None:
        if isinstance(self.types, str):
            raise ValueError(f"types: got the text {self.types!r}; expected a list of types.")
        types = tuple(_canonical(name) for name in self.types)
        if not types or len(set(types)) < len(types):
            raise ValueError(f"types: got {list(self.types)}; expected at least one, each once.")
        object.__setattr__(self, "types", types)
        one_of("invalid_text", self.invalid_text, InvalidText)
        if self.image_pattern is not None:
            _check_pattern(self.image_pattern)

    @property
    def columns(self) -> tuple[str, ...]:
        """What every table of negatives has."""
        return ("caption",)

    def __call__(self, key: str, row: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        """Raises BadSample when image or caption are missing, or the negatives are not as described."""
        caption = caption_text(key, row.get("caption"), "caption", generator)
        negatives = _general(key, row["negatives"]) if "negatives" in row else _published(key, row)
        if negatives and not negatives.keys() & set(self.types):
            raise BadSample(
                key,
                f"negatives of types {', '.join(sorted(negatives))}, expected some of {', '.join(self.types)}",
            )
        texts, mask = [], []
        for name in self.types:
            valid = [text for text in negatives.get(name, ()) if _is_false_caption(text, caption)]
            mask.append(bool(valid))
            if valid:
                texts.append(valid[int(generator.integers(len(valid)))] if len(valid) > 1 else valid[0])
            else:
                texts.append("" if self.invalid_text == "empty" else caption)
        return {
            "image": self._image(key, row),
            "caption": caption,
            "negative_text": texts,
            "negative_mask": torch.tensor(mask),
        }

    def _image(self, key: str, row: Mapping[str, Any]) -> str:
        if self.image_pattern is not None:
            try:  # numbers that were written as texts are numbers to the pattern
                fields = {name: _number(value) for name, value in row.items()}
                return self.image_pattern.format(**fields)
            except (KeyError, ValueError, TypeError) as error:
                raise BadSample(
                    key,
                    f"does not fit image_pattern {self.image_pattern!r} ({type(error).__name__}: {error})",
                ) from error
        for name in ("image", "image_path"):
            if isinstance(row.get(name), str) and row[name]:
                return str(row[name])
        hint = " (it has image_id: set dataset.mapper.image_pattern)" if "image_id" in row else ""
        raise BadSample(key, f"missing image or image_path{hint}")


def _canonical(name: Any) -> str:
    text = str(name).strip().lower()
    return ALIASES.get(text, text)


def _number(value: Any) -> Any:
    number = natural_number(value) if isinstance(value, str) else None
    return value if number is None else number


def _check_pattern(pattern: str) -> None:
    """Only plain names of fields, at least one: no attributes or entries of them, and no width without measure."""
    try:
        fields = [field[1:3] for field in string.Formatter().parse(pattern) if field[1] is not None]
    except ValueError as error:
        raise ValueError(f"image_pattern: got {pattern!r}, which is not a pattern ({error}).") from error
    if not fields or not all(
        str(name).isidentifier() and _FORMAT.fullmatch(spec or "") for name, spec in fields
    ):
        raise ValueError(
            f"image_pattern: got {pattern!r}; expected names of fields in braces, such as '{{image_id:012d}}.jpg', of "
            "at most 99 characters."
        )


def _is_false_caption(text: str, caption: str) -> bool:
    words = text.casefold().split()
    return (
        not is_blank(text)
        and text.strip() != _NO_TEXT
        and _UNFILLED not in text
        and words != caption.casefold().split()
    )


def _general(key: str, entries: Any) -> dict[str, list[str]]:
    """Texts by type from a list of {type, text}."""
    if not isinstance(entries, list):
        raise BadSample(key, f"negatives is {type(entries).__name__}, expected a list of {{type, text}}")
    by_type: dict[str, list[str]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str) or "type" not in entry:
            raise BadSample(key, "negatives is not a list of {type, text}")
        texts = by_type.setdefault(_canonical(entry["type"]), [])
        if entry.get("valid", True):
            texts.append(entry["text"])
    return by_type


def _published(key: str, row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Texts by type from the published fields, those left out that are flagged invalid."""
    if not any(field in row for field in FIELDS.values()):
        raise BadSample(key, f"missing negatives (or {', '.join(FIELDS.values())})")
    flags = row.get("valid_caption", [1] * (1 + len(FIELDS)))
    if not isinstance(flags, list) or len(flags) != 1 + len(FIELDS):
        raise BadSample(key, f"valid_caption is {flags!r}, expected {1 + len(FIELDS)} flags")
    if not flags[0]:
        raise BadSample(key, "valid_caption says that the caption is not valid")
    by_type: dict[str, list[str]] = {}
    for (name, field), flag in zip(FIELDS.items(), flags[1:], strict=True):
        text = row.get(field)
        if text is not None and not isinstance(text, str):
            raise BadSample(key, f"{field} is {type(text).__name__}, expected text")
        by_type[name] = [text] if text is not None and flag else []
    return by_type
