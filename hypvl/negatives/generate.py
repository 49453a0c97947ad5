"""From captions to their hard negatives: chooses words, asks a backend, keeps what passes the rules."""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from hypvl.checks import one_of
from hypvl.data.negatives import FIELDS
from hypvl.negatives.backends.base import Backend, Request
from hypvl.negatives.keyed_random import Draws
from hypvl.negatives.lexicon import Kind, lexicon
from hypvl.negatives.relation import RelationMethod, relation_negatives
from hypvl.negatives.tagging import Word, units_of
from hypvl.negatives.text import Edit, apply_edits, normal_form

NegativeType: TypeAlias = Literal["relation", "attribute", "object", "action"]
#: In the order of the published fields; the order in which a caption's negatives are made.
TYPES: tuple[NegativeType, ...] = ("relation", "attribute", "object", "action")
NOT_ASKED = "not asked for"
NO_REPLACEMENT = "no word that would make it false"
_KINDS: dict[NegativeType, Kind] = {"attribute": "adjective", "object": "noun", "action": "verb"}
_NO_WORD = {"adjective": "no known adjective", "noun": "no known noun", "verb": "no known verb"}
_WORDS_TRIED = 4
#: Stands in the published fields where there is no negative.
NO_NEGATIVE = "###"

ONLY_A_MASK = "the text is a mask or empty"
UNCHANGED = "the text says what the caption says"
DUPLICATE = "the text is another negative of the caption"
MENTIONED = "every replacement is in the captions of the image"

_MASKS = re.compile(r"<mask>|\[mask\]|<extra_id_\d+>|###", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A caption and what it belongs to."""

    position: int  # in its source, from 0; with the seed it decides every draw
    image: str | int  # path or id, as the source gives it
    caption: str  # the true text
    ids: tuple[tuple[str, Any], ...] = ()  # further fields to hand on (``image_id``, ``id``)
    #: The image's other captions where the source knows them: what they mention is never used as a replacement, for it
    #: is true of the image.
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """Which negatives are made."""

    seed: int = 0  # of all draws, >= 0
    types: tuple[NegativeType, ...] = TYPES  # the others are marked invalid
    relation: RelationMethod = "either"  # how relation negatives are made

    def __post_init__(self) -> None:
        one_of("relation", self.relation, RelationMethod)
        for kind in self.types:
            one_of("types", kind, NegativeType)


@dataclass
class Negatives:
    """The negatives of one caption: a text for each type there is, else the reason why there is none."""

    row: Row
    texts: dict[NegativeType, str] = field(default_factory=dict)
    reasons: dict[NegativeType, str] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """The object that is written: the published fields, and the general form with the same texts."""
        return {
            "image": self.row.image,
            **dict(self.row.ids),
            "caption": self.row.caption,
            **{FIELDS[kind]: self.texts.get(kind, NO_NEGATIVE) for kind in TYPES},
            "valid_caption": [1, *(int(kind in self.texts) for kind in TYPES)],
            "negatives": [
                {"type": kind, "text": self.texts[kind]}
                if kind in self.texts
                else {"type": kind, "text": NO_NEGATIVE, "valid": False}
                for kind in TYPES
            ],
        }


def make_negatives(rows: Sequence[Row], backend: Backend, settings: Settings) -> list[Negatives]:
    """The negatives of some captions, which are handed to the backend together; in order.

    Each type changes one word (relation: two) of the caption. Which one, and into what, is drawn from a
    generator of (seed, position of the caption, type): neither other captions nor other types matter.
    """
    tagged = backend.tag([row.caption for row in rows])
    jobs = [_Caption(row, words, settings) for row, words in zip(rows, tagged, strict=True)]
    for kind in TYPES:
        if kind not in settings.types:
            for job in jobs:
                job.made.reasons[kind] = NOT_ASKED
        elif kind == "relation":
            for job in jobs:
                job.relation(backend, settings)
        else:
            _replace(kind, jobs, backend, settings)
    return [job.made for job in jobs]


def _replace(kind: NegativeType, jobs: Sequence["_Caption"], backend: Backend, settings: Settings) -> None:
    """One negative of a type for each caption: asks for one word of each, then for another where that failed."""
    draws = [Draws(settings.seed, job.row.position, TYPES.index(kind)) for job in jobs]
    words = [job.choices(kind, draw) for job, draw in zip(jobs, draws, strict=True)]
    for attempt in range(_WORDS_TRIED):
        open_jobs = [
            i for i, job in enumerate(jobs) if kind not in job.made.texts and attempt < len(words[i])
        ]
        if not open_jobs:
            return
        requests = [Request(jobs[i].row.caption, words[i][attempt], draws[i]) for i in open_jobs]
        for i, replacements in zip(open_jobs, backend.replacements(requests), strict=True):
            jobs[i].replace(kind, words[i][attempt], replacements)


class _Caption:
    """A caption at work."""

    def __init__(self, row: Row, words: Sequence[Word], settings: Settings) -> None:
        self.row = row
        self.made = Negatives(row)
        self._words = words
        self._taken = Taken(row.caption)
        self._mentioned = Mentioned((row.caption, *row.others))

    def relation(self, backend: Backend, settings: Settings) -> None:
        """Make the relation negative, or note why there is none."""
        draws = Draws(settings.seed, self.row.position, TYPES.index("relation"))
        for text, reason in relation_negatives(
            self.row.caption, self._words, backend.inflect, draws, settings.relation
        ):
            if text is None:
                self.made.reasons["relation"] = reason
            elif self._keep("relation", text):
                return

    def choices(self, kind: NegativeType, draws: Draws) -> list[Word]:
        """The words of a type in a drawn order; notes when there is none."""
        wanted = _KINDS[kind]
        words = draws.shuffled([word for word in self._words if word.kind == wanted])
        self.made.reasons[kind] = NO_REPLACEMENT if words else _NO_WORD[wanted]
        return words

    def replace(self, kind: NegativeType, word: Word, replacements: Iterable[str]) -> None:
        """Make the negative with the first replacement that passes the rules, or note why there is none."""
        for replacement in replacements:
            if self._mentioned(word.kind, replacement):
                self.made.reasons[kind] = MENTIONED
            elif self._keep(kind, apply_edits(self.row.caption, [Edit(word.start, word.end, replacement)])):
                return

    def _keep(self, kind: NegativeType, text: str) -> bool:
        reason = self._taken.add(text)
        if reason is not None:
            self.made.reasons[kind] = reason
            return False
        self.made.texts[kind] = text
        self.made.reasons.pop(kind, None)
        return True


class Taken:
    """The texts that the next negative of a caption must differ from: the caption and its negatives so far."""

    def __init__(self, caption: str) -> None:
        self._caption = normal_form(caption)
        self._masks = len(_MASKS.findall(caption))
        self._negatives: set[str] = set()

    def add(self, text: str) -> str | None:
        """Accept a text as a negative; or return the reason why it is not one, and change nothing."""
        if len(_MASKS.findall(text)) > self._masks or not normal_form(_MASKS.sub(" ", text)):
            return ONLY_A_MASK
        form = normal_form(text)
        if form == self._caption:
            return UNCHANGED
        if form in self._negatives:
            return DUPLICATE
        self._negatives.add(form)
        return None


class Mentioned:
    """What the captions of an image mention: a replacement by one of these words may be true."""

    def __init__(self, captions: Sequence[str]) -> None:
        self._texts: set[str] = set()
        self._heads: dict[Kind, set[str]] = {"noun": set(), "adjective": set(), "verb": set()}
        for caption in captions:
            for text, readings in units_of(caption):
                self._texts.add(text)
                for reading in readings:
                    self._heads[reading.kind].update(sense.head for sense in reading.senses)

    def __call__(self, kind: Kind, replacement: str) -> bool:
        """Whether the word, or one that may be true together with it, is in the captions."""
        one_of("kind", kind, Kind)
        if replacement.lower() in self._texts:
            return True
        return any(
            lexicon().alike(kind, head, mentioned)
            for head in _heads(kind, replacement)
            for mentioned in self._heads[kind]
        )


@functools.lru_cache(maxsize=10_000)
def _heads(kind: Kind, text: str) -> tuple[str, ...]:
    readings = lexicon().readings.get(text.lower(), ())
    return tuple({sense.head for one in readings if one.kind == kind for sense in one.senses})
