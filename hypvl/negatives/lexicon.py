"""The built-in word lists: which words are nouns, adjectives and verbs, and what may stand in their place."""

import functools
import hashlib
import importlib.resources
import itertools
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, TypeAlias

from hypvl.checks import one_of
from hypvl.io.json_text import parse_json
from hypvl.negatives import morphology

Kind: TypeAlias = Literal["noun", "adjective", "verb"]
KINDS: tuple[Kind, ...] = ("noun", "adjective", "verb")
_FILES: dict[Kind, tuple[str, str]] = {
    "noun": ("nouns.json", "categories"),
    "adjective": ("adjectives.json", "groups"),
    "verb": ("verbs.json", "groups"),
}


class Sense(NamedTuple):
    """One meaning of a word: where in the lists it stands.

    ``head`` is the first word of its cluster, which stands for the cluster.
    """

    kind: Kind
    group: str
    head: str


class Reading(NamedTuple):
    """What a word as written can be: its base form, which form it is, and its meanings in the order of the lists."""

    kind: Kind
    lemma: str
    form: str
    senses: tuple[Sense, ...]


class Grammar(NamedTuple):
    """Function words; see words/grammar.json."""

    determiners: frozenset[str]
    prepositions: frozenset[str]
    be: frozenset[str]
    living: frozenset[str]
    have: frozenset[str]
    singular_determiners: frozenset[str]
    before_verbs: frozenset[str]
    before_third: frozenset[str]
    vowel_sound: frozenset[str]
    consonant_sound: frozenset[str]


class Opposite(NamedTuple):
    """A relation in words, what contradicts it, and the categories of things it must stand before (or any)."""

    words: str
    become: tuple[str, ...]
    needs: frozenset[str]


class Relations(NamedTuple):
    """Opposites by their words, and words that say the same when the things around them change places.

    ``lengths`` is as :func:`phrase_lengths` gives it.
    """

    opposites: dict[str, Opposite]
    lengths: dict[str, tuple[int, ...]]
    symmetric: frozenset[str]


def phrase_lengths(phrases: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """First word -> how many words the phrases have that begin with it, the longest first."""
    lengths_of: dict[str, set[int]] = defaultdict(set)
    for phrase in phrases:
        lengths_of[phrase.split(" ")[0]].add(phrase.count(" ") + 1)
    return {word: tuple(sorted(lengths, reverse=True)) for word, lengths in lengths_of.items()}


class Lexicon:
    """The lists, ready to look things up in. Use :func:`lexicon`, which reads them once."""

    def __init__(self, files: dict[Kind, dict[str, Any]]) -> None:
        self._groups: dict[Kind, dict[str, Any]] = {kind: files[kind][_FILES[kind][1]] for kind in KINDS}
        self.irregular_plurals: dict[str, str] = files["noun"]["irregular plurals"]
        self.light_nouns = frozenset(files["noun"]["light"])
        self._irregular_verbs: dict[str, list[str]] = files["verb"]["irregular"]
        self._irregular_degrees: dict[str, list[str]] = files["adjective"]["irregular grades"]
        self._ungraded = frozenset(files["adjective"]["ungraded"])
        self._alike: dict[Kind, set[frozenset[str]]] = {
            kind: {frozenset((line[0], other)) for line in files[kind]["alike"] for other in line[1:]}
            for kind in KINDS
        }
        self._senses = self._all_senses(read_only=True)
        self._places = self._all_senses(read_only=False)
        self.readings: dict[str, tuple[Reading, ...]] = self._all_readings(frozenset(files["verb"]["never"]))
        self.lengths = phrase_lengths(self.readings)

    def _all_senses(self, *, read_only: bool) -> dict[tuple[Kind, str], tuple[Sense, ...]]:
        """Where every word stands; ``read_only``: only where it is recognised."""
        senses_of: dict[tuple[Kind, str], list[Sense]] = defaultdict(list)
        for kind in KINDS:
            for name, group in self._groups[kind].items():
                for cluster in group["clusters"][: group.get("read") if read_only else None]:
                    for word in cluster:
                        senses_of[kind, word].append(Sense(kind, name, cluster[0]))
        return {key: tuple(senses) for key, senses in senses_of.items()}

    def _all_readings(self, never: frozenset[str]) -> dict[str, tuple[Reading, ...]]:
        readings_of: dict[str, list[Reading]] = defaultdict(list)
        for (kind, lemma), senses in self._senses.items():
            for form, written in self.forms(kind, lemma).items():
                if kind != "verb" or written not in never:
                    readings_of[written].append(Reading(kind, lemma, form, senses))
        return {written: tuple(readings) for written, readings in readings_of.items()}

    def forms(self, kind: Kind, lemma: str) -> dict[str, str]:
        """Form -> the word as written in it."""
        one_of("kind", kind, Kind)
        forms: dict[Any, str]
        if kind == "verb":
            forms = dict(morphology.verb_forms(lemma, self._irregular_verbs))
        elif kind == "adjective":
            forms = {"positive": lemma}
            if self._graded(lemma):
                forms = dict(morphology.degrees(lemma, self._irregular_degrees))
        else:
            number = self.number(lemma)
            if number == "count":
                forms = {"singular": lemma, "plural": morphology.plural(lemma, self.irregular_plurals)}
            else:
                forms = {"mass" if number == "mass" else "pair": lemma}
        return forms

    def inflect(self, kind: Kind, lemma: str, form: str) -> str | None:
        """The word in that form; None when it has none (``water`` in the plural, ``wooden`` compared).

        A past that is a participle too (``sat``) stands for either; one that is not (``ate``) cannot stand for
        both.
        """
        one_of("kind", kind, Kind)
        forms = self._written.get((kind, lemma)) or self.forms(kind, lemma)
        written = forms.get(form)
        return forms.get("past/participle") if written is None and form in ("past", "participle") else written

    @functools.cached_property
    def _written(self) -> dict[tuple[Kind, str], dict[str, str]]:
        return {
            (kind, cluster[0]): self.forms(kind, cluster[0])
            for kind in KINDS
            for group in self._groups[kind].values()
            for cluster in group["clusters"]
        }

    def _graded(self, adjective: str) -> bool:
        senses = self.senses("adjective", adjective)
        graded = any(self.group(sense).get("graded", False) for sense in senses)
        return graded and " " not in adjective and adjective not in self._ungraded

    def number(self, noun: str) -> str:
        """``count``, ``mass`` or ``plural``; nouns of no list count."""
        senses = self.senses("noun", noun)
        return self.group(senses[0]).get("number", "count") if senses else "count"

    def senses(self, kind: Kind, lemma: str) -> tuple[Sense, ...]:
        """The meanings of a base form; empty when it is in no list."""
        one_of("kind", kind, Kind)
        return self._senses.get((kind, lemma), ())

    def group(self, sense: Sense) -> dict[str, Any]:
        """What the lists say about the sense's category or group (animate, number, frame, of ...)."""
        group: dict[str, Any] = self._groups[sense.kind][sense.group]
        return group

    def alike(self, kind: Kind, head: str, other: str) -> bool:
        """Whether two clusters may be true of one thing: they are the same, or listed as alike."""
        one_of("kind", kind, Kind)
        return head == other or frozenset((head, other)) in self._alike[kind]

    @functools.cache  # noqa: B019 (one lexicon a process)
    def contradictions(self, sense: Sense) -> tuple[str, ...]:
        """Base forms that make a false caption in place of a word of this sense."""
        group = self.group(sense)
        heads = (cluster[0] for cluster in group["clusters"][: group.get("write")])
        return tuple(head for head in heads if not self.alike(sense.kind, sense.head, head))

    def contradicts(self, kind: Kind, lemma: str, other: str) -> bool | None:
        """Whether the lists say that the two exclude each other; None when they do not know one of them.

        Nouns exclude each other unless they are alike or one is general (a person is a man); adjectives and
        verbs only within a group (red and large may both be true).
        """
        one_of("kind", kind, Kind)
        ours, theirs = self._places.get((kind, lemma), ()), self._places.get((kind, other), ())
        if not ours or not theirs:
            return None
        if kind == "noun":
            general = any(self.group(sense).get("general", False) for sense in (*ours, *theirs))
            return not general and not any(
                self.alike(kind, a.head, b.head) for a, b in itertools.product(ours, theirs)
            )
        pairs = [(a, b) for a, b in itertools.product(ours, theirs) if a.group == b.group]
        return bool(pairs) and not any(self.alike(kind, a.head, b.head) for a, b in pairs)


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = parse_json(_content(name))
    return content


def _content(name: str) -> bytes:
    return importlib.resources.files("hypvl.negatives").joinpath("words", name).read_bytes()


@functools.cache
def lexicon() -> Lexicon:
    """The built-in lists of nouns, adjectives and verbs."""
    return Lexicon({kind: _read(_FILES[kind][0]) for kind in KINDS})


@functools.cache
def grammar() -> Grammar:
    """The built-in function words."""
    table = _read("grammar.json")
    return Grammar(*(frozenset(table[name.replace("_", " ")]) for name in Grammar._fields))


@functools.cache
def relations() -> Relations:
    """The built-in relations."""
    table = _read("relations.json")
    opposites = (
        Opposite(line["words"], tuple(line["become"]), frozenset(line.get("needs", ())))
        for line in table["opposites"]
    )
    by_words = {one.words: one for one in opposites}
    return Relations(by_words, phrase_lengths(by_words), frozenset(table["symmetric"]))


@functools.cache
def fingerprint() -> str:
    """Of the lists: negatives of one list do not go on with another."""
    names = sorted([*(file for file, _ in _FILES.values()), "grammar.json", "relations.json"])
    return hashlib.sha256(b"\0".join(_content(name) for name in names)).hexdigest()[:16]
